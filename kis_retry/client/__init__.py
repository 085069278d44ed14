"""The client: `KisClient`, its session, and the tables of KIS's pages."""

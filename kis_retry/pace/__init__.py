"""One pace for everybody with an app key."""

"""The token: where one comes from, how it is renewed once for everybody, and the websocket key beside it."""

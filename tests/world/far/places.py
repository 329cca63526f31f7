"""Where the SQL engine is."""

#: Where it waits for a knock before it starts (see engine.py).
DOOR = ("127.0.0.1", 9049)
#: Where it answers then, by its own defaults: BigQuery's methods, and its storage API.
REST = ("127.0.0.1", 9050)
STORAGE = ("127.0.0.1", 9060)

"""mongomock in the place of the MongoDB that FiftyOne starts: documents in this process."""

from __future__ import annotations

import os

SETTINGS = {
    "FIFTYONE_DISABLE_SERVICES": "1",
    "FIFTYONE_DO_NOT_TRACK": "1",
    "FIFTYONE_DATABASE_URI": "mongodb://nowhere",
    "FIFTYONE_DATABASE_VALIDATION": "false",
    "FIFTYONE_SHOW_PROGRESS_BARS": "false",
}


def pretend(monkeypatch):
    """Let FiftyOne, which is not yet imported, find one store for all of its clients; ImportError without mongomock."""
    import mongomock
    import mongomock.codec_options
    import mongomock.store

    store = mongomock.store.ServerStore()

    class Client(mongomock.MongoClient):
        _closed = False

        def __init__(self, *_, **options):
            known = {name: value for name, value in options.items() if name in ("tz_aware", "document_class")}
            super().__init__(_store=store, **known)

        def server_info(self):
            return {"version": "7.0.0", "versionArray": [7, 0, 0, 0]}

    for name, value in SETTINGS.items():
        monkeypatch.setitem(os.environ, name, value)
    monkeypatch.setattr(mongomock.codec_options, "is_supported", lambda _: mongomock.codec_options.CodecOptions())
    monkeypatch.setattr("pymongo.MongoClient", Client)
    monkeypatch.setattr("mongoengine.connection.MongoClient", Client)

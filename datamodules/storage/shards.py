"""Tar shards in the webdataset convention (key.mp4, key.json, ...) with an index beside each, and a manifest.

    DIR/manifest.json             samples written, samples left out and why, settings, licence, hashes of all files
    DIR/train-000000.tar          readable with webdataset and tar
    DIR/train-000000.index.json   where each file lies in the tar, for random access, and its checksum
    DIR/train-000000.record.json  only while the folder is unfinished: this shard is complete, and its settings

The manifest is written last: a folder without one is unfinished and never read. We read the index ourselves because
webdataset 1.0.2 dropped the `wids` of older releases and only streams tars in order.

This module has the public names: `writer` writes, `reader` reads.
"""

from .files import sha256 as sha256
from .index import index_path as index_path
from .manifest import MANIFEST as MANIFEST
from .manifest import MAX_REHASHED as MAX_REHASHED
from .manifest import fingerprint as fingerprint
from .manifest import finished as finished
from .manifest import read_manifest as read_manifest
from .manifest import shards_of as shards_of
from .manifest import write_manifest as write_manifest
from .reader import Sample as Sample
from .reader import ShardReader as ShardReader
from .writer import write_shard as write_shard
from .writer import write_shards as write_shards

"""Images from files: decoding, containers, scanning, the index, the cache and the packed dataset."""

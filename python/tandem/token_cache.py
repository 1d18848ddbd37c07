"""The folder of a job's tokens: named by its content's key, whole or not there.

Written aside, made durable and renamed. A folder whose writer was killed is unlocked, and the next
writer removes it.
"""

import fcntl
import hashlib
import json
import os
import shutil

from tandem.token_shards import sync_folder


def cache_key(content):
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def read_manifest(folder):
    """The manifest if the folder is whole (sizes; training checks the digests), else None."""
    try:
        with open(os.path.join(folder, "manifest.json"), encoding="utf-8") as file:
            manifest = json.load(file)
        sizes = {name: os.path.getsize(os.path.join(folder, name)) for name in manifest["files"]}
        whole = all(sizes[name] == entry["bytes"] for name, entry in manifest["files"].items())
        return manifest if whole else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


class FolderAside:
    """A folder beside the final one, locked while its writer lives: a kill leaves it unlocked."""

    def __init__(self, cache, key):
        os.makedirs(cache, exist_ok=True)
        self.remove_abandoned(cache)
        self.path = os.path.join(cache, f".{key[:16]}.{os.getpid()}.part")
        os.mkdir(self.path)
        self.lock = os.open(self.path, os.O_RDONLY)
        fcntl.flock(self.lock, fcntl.LOCK_EX)

    @staticmethod
    def remove_abandoned(cache):
        for name in os.listdir(cache):
            if not (name.startswith(".") and name.endswith(".part")):
                continue
            path = os.path.join(cache, name)
            try:
                descriptor = os.open(path, os.O_RDONLY)
            except OSError:
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(path, ignore_errors=True)
            except BlockingIOError:
                pass
            finally:
                os.close(descriptor)

    def commit(self, final):
        """Renames to `final`. If another run was faster, its folder stays: same content."""
        sync_folder(self.path)
        if read_manifest(final) is None:
            shutil.rmtree(final, ignore_errors=True)
        try:
            os.rename(self.path, final)
        except OSError:
            if read_manifest(final) is None:
                raise
        sync_folder(os.path.dirname(final))

    def close(self):
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self.lock)

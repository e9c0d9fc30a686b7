"""`diffusion cache`: lists what lies in the cache of decoded images and models of the hub, and removes what is not
needed.

Whatever is removed is made again where it is needed, from the images or from the hub. A run that trains keeps the
images that it has mapped, even when their entry is removed.
"""

from __future__ import annotations

import shutil
import time
from datetime import datetime
from pathlib import Path

from diffusion.commands.options import Cache
from diffusion.data.images import inventory, store, uses
from diffusion.data.images.decoding import printable
from diffusion.data.images.inventory import Stored
from diffusion.data.images.scan import default_cache
from diffusion.errors import InputError, require
from diffusion.exchange import kept


def cache(options: Cache) -> int:
    """Prints the entries, or removes some and prints which; the exit code is 1 if one could not be removed."""
    if not options.prune:
        for name in ("older_than", "all"):
            if getattr(options, name):
                raise InputError(f"--{name.replace('_', '-')}: has no effect without --prune")
    require(options.older_than is None or options.older_than >= 0, "--older-than", "0 or more", options.older_than)
    if options.all and options.older_than is not None:
        raise InputError("--older-than: has no effect with --all")
    folder = default_cache()
    found = entries(folder)
    if not found:
        print(f"{printable(folder)}: the cache is empty")
        return 0
    if options.prune:
        return prune(folder, found, options)
    print("\n".join(listing(folder, found)))
    return 0


def entries(folder: Path) -> list[Stored]:
    """Returns the entries of decoded images and then the models in a cache."""
    return [*inventory.entries(folder), *kept.models(folder)]


def listing(folder: Path, found: list[Stored]) -> list[str]:
    """Returns a table of entries, and lines about their sum and about those that will not be read again."""
    free = shutil.disk_usage(folder).free
    lines = [f"{printable(folder)}: {summed(found)}; {amount(free)} of the disk are free", ""]
    lines.append(f"{'last used':<12}{'bytes':>9}{'images':>11}  {'what':<28}of")
    lines += [row(entry) for entry in found]
    obsolete = [entry for entry in found if entry.obsolete]
    lines.append("")
    if obsolete:
        lines.append(f"diffusion cache --prune removes {summed(obsolete)}, which will not be read again")
    lines.append("diffusion cache --prune --older-than DAYS, or --all, removes more; it is made again where needed")
    if others := inventory.others(folder) - (folder / kept.MODELS).is_dir():
        lines.append(f"{others} other files or folders lie there, which are never touched")
    return lines


def row(entry: Stored) -> str:
    """Returns the line of an entry."""
    day = datetime.fromtimestamp(entry.used).astimezone().date().isoformat()
    images = "" if entry.images is None else f"{entry.images:,}"
    of = "; ".join(filter(None, ("" if entry.unfinished else entry.of, entry.obsolete)))
    return f"{day:<12}{amount(entry.bytes):>9}{images:>11}  {entry.what:<28}{of}"


def prune(folder: Path, found: list[Stored], options: Cache) -> int:
    """Removes the entries that will not be read again, those not used for some days, or all; prints each of them."""
    limit = None if options.older_than is None else time.time() - options.older_than * store.DAY
    writing = [entry for entry in found if entry.unfinished and not entry.obsolete]
    chosen = [
        entry
        for entry in found
        if entry not in writing and (options.all or entry.obsolete or (limit is not None and entry.used < limit))
    ]
    code = 0
    for entry in chosen:
        try:
            uses.remove(entry.path)
        except OSError as error:
            print(f"not removed: {printable(entry.path)}: {error.strerror or error}")
            code = 1
        else:
            print(f"removed  {row(entry)}")
    if writing:
        print(f"{summed(writing)} that other processes are writing were left alone")
    left = entries(folder)
    print(f"{printable(folder)}: {summed(found)} before, {summed(left)} now")
    return code


def summed(entries: list[Stored]) -> str:
    """Says how many entries there are, and how large they are together."""
    count = len(entries)
    return f"{count:,} {'entry' if count == 1 else 'entries'}, {amount(sum(entry.bytes for entry in entries))}"


def amount(count: int) -> str:
    """Writes a number of bytes in the largest unit of which there is at least one."""
    for unit, size in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} B"

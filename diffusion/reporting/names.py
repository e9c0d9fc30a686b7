"""The names of the files of a run folder that training writes and that pages and reports read."""

from __future__ import annotations

# The resolved configuration, the data and the weights that a run learns from, and where an imported model is from.
RESOLVED, SOURCES, IMPORT = "config.json", "sources.json", "import.json"
# The logged numbers, what went wrong, and what a run is trained on.
METRICS, INCIDENTS, MACHINE = "metrics.jsonl", "incidents.jsonl", "machine.json"
# The lock that a training holds, and what it is asked for meanwhile.
LOCK, REQUEST = ".lock", "request.json"
# Grids of samples lie in SAMPLES as step-00001000.png, with real examples beside them.
SAMPLES, REAL = "samples", "real.png"
# The pictures of a run; LAST is written last: with it a run is complete.
LAST, GAP_PICTURE = "samples.png", "gap_by_log_snr.png"
PICTURES = (REAL, "film.png", "restoration.png", LAST, "loss_by_log_snr.png", GAP_PICTURE)
# The numbers of the last evaluation.
EVALUATION = "evaluation.json"
# Checkpoints, as `diffusion.checkpoint` writes them; that file imports torch.
CHECKPOINTS, PREFIX, MANIFEST, WEIGHTS = "checkpoints", "step-", "manifest.json", "model.safetensors"
# Rounds on completed images, em-1, em-2, ...: runs within a run, which hold its lock.
ROUND = "em-"

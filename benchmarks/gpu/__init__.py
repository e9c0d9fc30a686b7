"""What the package does on a GPU: whether it works, where it waits, and how fast it is.

    python -m benchmarks.gpu [--device cuda] [--minutes 8] [--parts NAME ...] [--no-compile] [--out FILE] [--check]

The parts run one after the other, each in a process of its own and within its share of the time:

1. smoke: training, sampling, restoring by each operator and method, evaluating, and the proof of exact resumption;
2. waits: how often the host waits for the device in a step of training, sampling and restoring;
3. profile: the kernels of ten training steps, eager and compiled;
4. kernels: bf16 matrix products, and the convolutions of a step in both memory layouts;
5. the shipped configurations cifar10, folder64, folder128 and folder256: training and sampling;
6. matched: training and sampling beside diffusers at equal work, where it is installed.

What fails, is not available, or has no time left has the reason in its row, and the others go on. On the CPU the same
code runs with tiny images, which shows only that it works.
"""

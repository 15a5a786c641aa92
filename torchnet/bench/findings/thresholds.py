"""From where on something is told, all in one place, each with its reason.

The figures of healthy networks are from local networks (Linux 6, tbf, 1 and 2.5 Gbit/s, MTU 1500 and 9000).
"""

from __future__ import annotations

LARGE = 1 << 20
"""Bytes from which on a message is large. Below, the round trips are a good part of a call's time."""

LARGE_ROUNDS = 20
"""A large message's part for one rank takes so many round trips at least: on fast lines 1 MiB is still a small one."""

SLOW = 0.8
"""Of the others' rate, or of the line. Healthy pairs differ by 2 %, two switches' uplinks by 10 %."""

SLOW_BUSY = 0.5
"""The same where the processor limits both: there, whatever else runs costs 20 to 30 % for a while."""

ONE_STREAM = 1e9
"""Bytes per second of one stream, from which on it may be its core's limit and not the path's. One core gives 20 to
50 Gbit/s of 100, and a good part of its work is done for it by another core (the interrupts), which nothing counts."""

SLOW_STREAM = 1 / 3
"""Of the others' rate, of streams above ONE_STREAM: on which core, and how far from the card, decides about the rest.
From 20 to 50 Gbit/s is a factor of 2.5 between healthy pairs of the same machines."""

ASYMMETRY = 1.25
"""One direction over the other: the same reasons; intervals may not touch, either."""

ASYMMETRY_BUSY = 2.0

ASYMMETRY_STREAM = 3.0
"""The same as SLOW_STREAM."""

REACHED = 0.9
"""Of the line's ceiling. TCP reaches 0.97 to 0.99 of it, collectives 0.95 and more."""

MORE_THAN_LINE = 1.25
"""Of the line's ceiling, by raw TCP. On a slow line a queue lets a burst through in one slice and less in the next: at
50 Mbit/s medians of 1.09 were seen."""

BUSY = 0.9
"""Of the cores, or of one stream's core: what is left is the kernel's accounting and the end of a slice."""

BUSY_UNSHAPED = 0.7
"""The same where no line is known: what is measured then is the processor or what comes near it."""

IDLE_STREAM = 0.1
"""Of one core: what a stream that waits for the network uses (0.05 at 1 Gbit/s). All cores may be busy with something
else then; one that waits for a core gets more than this, as schedulers are fair."""

EASY_STREAM = 0.5
"""Of one core: a stream that uses less waits for something else, even where another core does half of its work."""

THROTTLED = 0.05
"""Of a quota's periods, used up: then all of a node's threads stop at once, so its peers wait, too."""

WINDOW_LIMITED = 0.5
"""Of the time. Healthy streams are below 0.02, also in slow start."""

WINDOW_FREE = 0.1
"""Of the time: so little, and something else holds the stream up."""

STRAY = 0.05
"""Of the peers' bytes over another interface: control messages are below 0.01."""

BACKEND_SHARE = 0.95
"""The same, of the receipt."""

WINDOW_OF_BUFFER = 2
"""Linux keeps a part of a buffer for its own accounting; half and more of it is the window (tcp_adv_win_scale)."""

REPEATED = 0.001
"""Of the segments, where the rate or the small messages suffer, too. Alone it says little: a healthy queue that is full
drops packets, that is how TCP finds the rate. Seen on healthy networks: 0.0002 at 1 Gbit/s and more, but 0.16 at
100 Mbit/s with four streams, and 0.02 unshaped, where the processor does not empty the queues."""

REPEATED_ALONE = 0.005
"""Of the segments, on lines of at least LOSS_RATE, though the rate does not suffer: ten times what a second of slow
start costs there. On a short path TCP repeats quickly enough to fill the line at 1 % of loss."""

LOSS_UNSTEADY = 0.05
"""Half of the interval of a rate, over it, that tells loss from a queue that is merely full: a slower link drops
packets, too, but its rate stays within 0.02."""

LOSS_RATE = 500e6
"""Bits per second, from which on a full queue's own drops are few among the segments."""

REPEATED_COUNT = 20
"""Segments; one end of slow start repeats 10."""

STALLED = 0.1
"""Seconds of the 99th percentile of small messages' round trips: a lost one waits for Linux' least time-out, 0.2 s.
On an idle path nothing else takes so long."""

STALLED_OVER = 20
"""… and so many medians: paths around the world have long round trips without a loss."""

MORE_BYTES, FEWER_BYTES = 1.1, 0.9
"""Sockets' bytes over the formula's. What Gloo adds are a few hundred bytes for each call."""

INTERFACE_MORE = 1.15
"""An interface's bytes over those that the sockets' must have with headers: acknowledgements are up to 3 %."""

LARGE_NCCL = 1 << 24
"""NCCL's protocol for small messages (LL) doubles the bytes; below 16 MiB it may be chosen."""

COLLECTIVE = 0.8
"""Of the slowest pair's raw TCP in both directions at once."""

COLLECTIVE_FAST = 0.5
"""The same where that is more than ONE_STREAM: what is done to each byte besides counts there."""

IDLE_GLOO = 0.5
"""Of one core, above ONE_STREAM: Gloo receives in one thread and reduces in another, by turns, so that each of the two
may have half of the time and there is none left."""

NOISE = 0.2
"""Half of the interval over the median, in the middle of all large sizes: so wide, and 10 % more or less cannot be
told. One size alone may have met a pause."""

NOISE_BUSY = 0.4
"""The same where no line limits the rate, but the processor: there, figures move with whatever else it does."""

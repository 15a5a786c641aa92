"""The thresholds of all findings in one place, each with its reason.

The figures of healthy networks were measured on local networks (Linux 6, tbf, 1 and 2.5 Gbit/s, MTU 1500 and 9000).
"""

from __future__ import annotations

LARGE = 1 << 20
"""Bytes from which a message counts as large. Below, round trips are a good part of a call's time."""

LARGE_ROUNDS = 20
"""Round trips that one rank's part of a large message takes at least: on fast lines 1 MiB is still a small message."""

SLOW = 0.8
"""Share of the others' rate, or of the line. Healthy pairs differ by 2 %, the uplinks of two switches by 10 %."""

SLOW_BUSY = 0.5
"""The same if the processor limits both: there, other load costs 20 to 30 % for a while."""

ONE_STREAM = 1e9
"""Bytes per second of one stream from which its core may be the limit, and not the path. One core reaches 20 to 50 of
100 Gbit/s, and another core does much of the work (the interrupts), which is not counted."""

SLOW_STREAM = 1 / 3
"""Share of the others' rate, for streams above ONE_STREAM. There the core and its distance from the card decide:
healthy pairs of the same machines reach 20 to 50 Gbit/s, a factor of 2.5."""

ASYMMETRY = 1.25
"""One direction over the other, for the same reasons. In addition, the intervals must not overlap."""

ASYMMETRY_BUSY = 2.0

ASYMMETRY_STREAM = 3.0
"""For the same reason as SLOW_STREAM."""

REACHED = 0.9
"""Share of the line's ceiling. TCP reaches 0.97 to 0.99 of it, collectives 0.95 and more."""

MORE_THAN_LINE = 1.25
"""Raw TCP over the line's ceiling. On a slow line a queue lets a burst through in one slice and less in the next: at 50
Mbit/s medians reached 1.09."""

BUSY = 0.9
"""Share of the cores, or of one stream's core. The rest is the kernel's accounting and the end of a slice."""

BUSY_UNSHAPED = 0.7
"""The same if no line is known: the measurement then shows the processor, or something close to it."""

IDLE_STREAM = 0.1
"""Share of one core that a stream uses while it waits for the network (0.05 at 1 Gbit/s). Other processes may use all
cores meanwhile; a stream that waits for a core gets more than this, because schedulers are fair."""

EASY_STREAM = 0.5
"""Share of one core below which a stream waits for something else, even if another core does half of its work."""

THROTTLED = 0.05
"""Share of CPU quota periods with the quota exhausted. All threads of the node then stop at once, and its peers wait as
well."""

WINDOW_LIMITED = 0.5
"""Share of the time. Healthy streams stay below 0.02, in slow start too."""

WINDOW_FREE = 0.1
"""Share of the time below which something other than the window limits the stream."""

STRAY = 0.05
"""Share of the peers' bytes over another interface. Control messages stay below 0.01."""

BACKEND_SHARE = 0.95
"""The same limit for the share in the receipt."""

WINDOW_OF_BUFFER = 2
"""Buffer over window. Linux keeps a part of a buffer for its own accounting and uses at least half as the window
(tcp_adv_win_scale)."""

REPEATED = 0.001
"""Share of retransmitted segments that counts if the rate or the small messages suffer too. By itself it says little: a
healthy queue that is full drops packets, which is how TCP finds the rate. Healthy networks showed 0.0002 at 1 Gbit/s
and more, but 0.16 at 100 Mbit/s with four streams, and 0.02 unshaped, where the processor does not empty the queues."""

REPEATED_ALONE = 0.005
"""Share of retransmitted segments that counts even if the rate does not suffer, on lines of at least LOSS_RATE: ten
times what a second of slow start costs there. On a short path TCP retransmits fast enough to fill the line at 1 %
loss."""

LOSS_UNSTEADY = 0.05
"""Half of the interval of a rate over the rate, which separates loss from a full queue: a slower link drops packets
too, but its rate stays within 0.02."""

LOSS_RATE = 500e6
"""Bits per second from which the drops of a full queue are a small share of the segments."""

REPEATED_COUNT = 20
"""Segments. The end of slow start retransmits 10."""

STALLED = 0.1
"""Seconds, for the 99th percentile of small messages' round trips. A lost message waits for Linux's minimum
retransmission timeout, 0.2 s; on an idle path nothing else takes so long."""

STALLED_OVER = 20
"""The same percentile over the median: paths around the world have long round trips without loss."""

MORE_BYTES, FEWER_BYTES = 1.1, 0.9
"""Sockets' bytes over the formula's. Gloo adds a few hundred bytes to each call."""

INTERFACE_MORE = 1.15
"""An interface's bytes over the sockets' bytes plus headers. Acknowledgements are up to 3 %."""

LARGE_NCCL = 1 << 24
"""Bytes. NCCL's protocol for small messages (LL) doubles the bytes, and NCCL may choose it below 16 MiB."""

COLLECTIVE = 0.8
"""Share of the slowest pair's raw TCP in both directions at once."""

COLLECTIVE_FAST = 0.5
"""The same if that rate is above ONE_STREAM: there the other work on each byte counts."""

IDLE_GLOO = 0.5
"""Share of one core, above ONE_STREAM. Gloo receives in one thread and reduces in another, by turns: each may be busy
half of the time with none to spare."""

NOISE = 0.2
"""Half of the interval over the median, for the median of all large sizes. With an interval this wide, a change of 10 %
cannot be seen. A single size may have met a pause."""

NOISE_BUSY = 0.4
"""The same if the processor limits the rate and not a line: figures then vary with other load."""

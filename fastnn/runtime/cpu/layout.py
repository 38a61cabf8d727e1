"""Layout of the tables that the run loop reads, in int64 words (see `loop`)."""

# run description: address of segments, number of segments, address of barrier, address of clock
# segment: address of rows, number of rows, address of calls, steps
SEGMENT_WORDS = 4
# row: kind, then for a group: items, grain, block, first call, calls, rotation;
#      for a barrier: 0, 0, 0, first serial call, serial calls, 0
ROW_WORDS = 8
GROUP, BARRIER = 1, 2
# call: kernel address, record address, multiplier
CALL_WORDS = 4
# barrier: workers that have arrived at word 0, generation at word 8 (another cache line)
GENERATION = 8
BARRIER_WORDS = 16

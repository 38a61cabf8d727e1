"""Layout of the tables that the run loop reads, in int64 words (see `loop`)."""

# run description: address of segments, number of segments, address of barrier, address of clock
# segment: address of rows, number of rows, address of calls, steps
SEGMENT_WORDS = 4
# row: kind, then for a group: items, grain, block, first call, calls, rotation;
#      for a barrier: 0, 0, 0, first serial call, serial calls, 0
ROW_WORDS = 8
GROUP, BARRIER = 1, 2
# call: kernel address, record address, multiplier, address of the local operands' table or 0
CALL_WORDS = 4
# local operands: bytes from one worker's copy of the record to the next, number of operands;
# then for each: word of the record, address in the first worker's memory, bytes from one worker's
# memory to the next, bytes of a group item
LOCAL_WORDS = 2
LOCAL_OPERAND_WORDS = 4
# barrier: workers that have arrived at word 0, generation at word 8 (another cache line)
GENERATION = 8
BARRIER_WORDS = 16
# team: address of `run`, address of the run's description, number of helpers, how many of them
# slept when the task was posted; then, on cache lines of their own, how many helpers have finished
# and the state of each helper
TEAM_RUN, TEAM_DESCRIPTION, TEAM_HELPERS, TEAM_SLEEPING = 0, 1, 2, 3
TEAM_DONE = 8
TEAM_STATES = 16
TEAM_STRIDE = 8
# states: waits in Python; waits in compiled code; has to run the description
ASLEEP, READY, TASK = 0, 1, 2

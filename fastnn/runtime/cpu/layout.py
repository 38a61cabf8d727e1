"""Layout of the tables that the run loop reads, in int64 words (see `loop`)."""

from fastnn.kernels import recorded

recorded.record()

# run description: address of segments, number of segments, of barrier, of control block, whether
# the number of workers is chosen while it runs, address and number of all segments (while it is,
# the first two words are of the one that is made); then, on cache lines of its own, the barrier
DESCRIPTION_CHOOSES, DESCRIPTION_ALL, DESCRIPTION_COUNT = 4, 5, 6
DESCRIPTION_BARRIER = 8
# segment: address of rows, number of rows, address of calls, steps, address of the first worker's
# loop steps (a word for each depth of loop), bytes from one worker's to the next, address of a word
# that holds the address of a list of the words that make the tables those of its size, or 0; then,
# where the number of workers is chosen: all its steps, address of the choice (0: one worker), units
# of work in a step, and the number of the last candidate for which the run has workers
SEGMENT_WORDS = 11
SEGMENT_STEPS, SEGMENT_ALL, SEGMENT_CHOICE, SEGMENT_UNIT, SEGMENT_MOST = 3, 7, 8, 9, 10
# choice of a number of workers (see `choosing`): how many candidates, the current one's number,
# that of the one that is being tried or -1, on how many workers the last steps ran, time of all
# steps, what trials have cost, time at which the next one is due, on which side, time of the last
# change; how long the trial that goes on has taken, of that the time and units of work that count,
# and what trials had cost before it; then for each candidate: workers, estimated time of a step,
# measured time of a unit of work or 0, how often it was measured, time for which it is left alone
# when it disappoints, when that ends, time and units of work of the measurement that goes on, and
# how many trials of it have come to nothing
CHOICE_COUNT, CHOICE_CURRENT, CHOICE_TRIED, CHOICE_LAST, CHOICE_ELAPSED = 0, 1, 2, 3, 4
CHOICE_SPENT, CHOICE_DUE, CHOICE_SIDE, CHOICE_SINCE = 5, 6, 7, 8
CHOICE_TRIAL, CHOICE_TIME, CHOICE_WORK, CHOICE_BEFORE = 9, 10, 11, 12
CHOICE_WORDS = 13
CANDIDATE_WORKERS, CANDIDATE_ESTIMATE, CANDIDATE_MEAN, CANDIDATE_SEEN = 0, 1, 2, 3
CANDIDATE_HOLD, CANDIDATE_UNTIL, CANDIDATE_BUSY, CANDIDATE_DONE = 4, 5, 6, 7
CANDIDATE_FAILED = 8
CANDIDATE_WORDS = 9
# list of a size's words: address of the word that says which list was written last, the number of
# this one, how many words; then for each its address and what it holds
SIZE_WORDS = 3
# row: kind, then for a group: items, grain, block, first call, calls, rotation;
#      for a barrier: 0, 0, 0, first serial call, serial calls, 0
#      where a loop of phases begins: depth, address of its words, the row after its end; where it
#      ends: depth, address of its words, the row that its steps begin with
ROW_WORDS = 8
GROUP, BARRIER, BEGIN, AGAIN = 1, 2, 3, 4
# call: kernel address, record address, multiplier, address of the placed operands' table or 0 (of a
#       call in a loop that places them: less the bytes of a worker's copy of the record);
#       where a loop begins: 0, depth, less the call after its end, address of its words;
#       where it ends: 0, depth, call that its steps begin with, address of its words (both calls
#       are counted from the group's first)
CALL_WORDS = 4
# record of a call of the host: address of the team's table, number of the function
# loop: number of steps, number of the tables of calls that it places, address of their addresses,
# number of words that each step adds to, address of a list of them: address of the word in the
# first worker's copy, bytes from one worker's copy to the next, what is added; whether its first
# step is the last in time, and the address of what it looks at to see whether it goes on, or 0
LOOP_WORDS = 7
# what a loop looks at: address in the first step of all loops, bytes of an item, items, how many
# loops there are with its own; then how it moves in each of them, from the outermost on
WATCH_WORDS = 4
ADVANCE_WORDS = 3
# placed operands: bytes from one worker's copy of the record to the next, address of the record as
# it is in the first step of all loops, number of operands in local memory, number of moves;
# then for each local operand: word of the record, address in the first worker's memory, bytes from
# one worker's memory to the next, bytes of a group item;
# then for each move: word of the record, depth of the loop, what is added in each of its steps
PLACED_WORDS = 4
LOCAL_OPERAND_WORDS = 4
MOVE_WORDS = 3
# barrier: how often workers have arrived in this run at word 0; at word 8 (another cache line)
# twice the number of times it has opened, and 1 more if the run stops there
OPENED = 8
BARRIER_WORDS = 16
DESCRIPTION_WORDS = DESCRIPTION_BARRIER + BARRIER_WORDS
# team (see `handover`): address of `run`, address of the run's description, number of helpers, the
# clock that `wait` goes by, and the time to which it waits (seconds, nanoseconds); how many workers
# do the run, and the address of what reads the clock for choosing them; then, on cache lines of
# their own, how many helpers have finished; whether a run that was submitted is going on, and what
# that clock shows (seconds, nanoseconds);
# a mutex and two condition variables (POSIX): tasks have been posted, the run has ended; what the
# run asks of the host (the address of a call's record, or 0), whether that failed, and whether it
# is refused from now on; and for each worker (the first is the thread that leads submitted runs)
# its state, and whether it has a thread
TEAM_RUN, TEAM_DESCRIPTION, TEAM_HELPERS, TEAM_CLOCK, TEAM_TIME = 0, 1, 2, 3, 4
TEAM_ACTIVE, TEAM_READ = 6, 7
TEAM_DONE = 8
TEAM_RUNNING, TEAM_SHOWN = 16, 18
TEAM_MUTEX, TEAM_POSTED, TEAM_ENDED = 24, 40, 56
TEAM_ASKED, TEAM_FAILED, TEAM_REFUSES = 72, 73, 74
TEAM_STATES = 80
TEAM_STRIDE = 8
TEAM_THREAD = 1  # in a worker's words
# states: waits asleep; waits awake; has to run the description; has to end
ASLEEP, READY, TASK, QUIT = 0, 1, 2, 3
# blocks of random numbers that are drawn at a time (see `permuting`)
ORDER_BLOCKS = 64

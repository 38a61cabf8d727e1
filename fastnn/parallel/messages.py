"""What processes of one machine and their meeting say to each other."""

import struct

#: a process's first byte, where it has come to a meeting, and where it has come to its end
HERE, END = b"h", b"e"
#: the first, the meeting's purpose, its number
MESSAGE = struct.Struct("<cqq")
#: the answer to those who may go on; any other is the reason why not
GO = b"\0"

"""What keeps parameters finite: checks, copies, what latches a stop."""

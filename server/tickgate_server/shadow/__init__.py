"""The shadow scorer: a process that scores what the journal recorded with versions that never answer."""

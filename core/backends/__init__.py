"""What a worker runs for one feature; each backend is a process of its own.

A backend is an argument list. It gets the environment and the run description of
its agent, prints a log, reports events, and ends its feature by exiting with 0 and a
commit. All but the scripted one are started through a process of ours that reads
what the program says, because exit codes of agent programs do not tell the truth.
That process runs beside every such agent, so nothing it needs is imported here.
"""

"""A whole cluster on one machine: native processes, containers, or one process."""

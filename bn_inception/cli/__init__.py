"""The command line: one module a command, Hydra's `key=value` convention for all."""

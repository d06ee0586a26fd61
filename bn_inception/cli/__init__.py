"""The command line: Hydra's `key=value` convention for all commands."""

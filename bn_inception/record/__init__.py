"""The run folder: metrics, milestones, summary, environment, and their TensorBoard mirror.

`metrics.jsonl` and `summary.json` are the record; TensorBoard shows the same numbers. Nothing here
imports torch.
"""

"""The run folder: `metrics.jsonl` and `summary.json` are the record, TensorBoard mirrors them."""

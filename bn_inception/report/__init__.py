"""Tables, figures and verdicts of runs. Reads run folders only; never trains or imports torch."""

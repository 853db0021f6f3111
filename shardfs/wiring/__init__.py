"""The only place that builds object graphs: which store for which url, what wraps what, who is closed when."""

"""Which weights of a model are trained, and the low-rank adapters beside the others."""

"""The mutation corpus: sound inputs built from phantoms, mutated by kind, and the judgement of what is read of them."""

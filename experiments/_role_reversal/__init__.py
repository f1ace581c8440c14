"""Parts of the role-reversal study: texts, training, scores, claims."""

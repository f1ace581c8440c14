"""Parts of the attack studies: shadows, audits, canaries, races."""

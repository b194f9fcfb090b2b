"""Before and after a run: what each route costs to make and to keep, and when one pays off."""

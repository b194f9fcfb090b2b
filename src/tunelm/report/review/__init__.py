"""People's judgement of a run: a blind sheet out, their ratings in."""

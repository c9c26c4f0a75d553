"""Stage `distil`: students learn from the teacher; a control is the same student without one."""

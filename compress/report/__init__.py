"""`report.html`: a result as one page that is kept: self-contained, readable on a phone and without sight."""

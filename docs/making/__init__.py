"""How the site is made: what is generated (notebooks, reference), mathematics, and the check of every link."""

"""What both databases and the decisions share: the rows of the tables are the values that decisions get."""

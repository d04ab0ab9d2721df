"""What goes to Kaggle and comes from it: the competition's data, submissions, their scores."""

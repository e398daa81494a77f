"""What is done to stars before anything is learned from them."""

"""The paper's method in full, over any joint encoder of words and patches; knows no queues and no environment."""

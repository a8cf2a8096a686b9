"""What is stored about pods and containers, and which states may follow which."""

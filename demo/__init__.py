"""tiny-chat: a very small demo model, its corpus, its training and its checks."""

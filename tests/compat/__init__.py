"""Clients that are not installed with the app: each test runs where its package is there.

pip install langchain-openai instructor anthropic
"""

"""Networks in bands of rows: the result of the whole image within a memory bound."""

"""The page that `demo.py` makes: what runs in the browser, and what writes it.

The page itself is index.html, style.css and the modules beside it (`main.js`
joins them); they are copied as they are.
"""

"""The recipe's section `search`: Optuna proposes students, which run as ordinary cached stages."""

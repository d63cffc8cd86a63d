"""hydra/sweeper=spp_optuna: Optuna proposes the points of a sweep from the results of earlier ones."""

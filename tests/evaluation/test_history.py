from mnist_exp.evaluation.history import History


def test_the_best_epoch_is_the_first_of_equals():
    history = History([{"val_accuracy": 0.5, "val_loss": 2.0}, {"val_accuracy": 0.7, "val_loss": 1.0}] * 2)
    assert history.best_epoch("val_accuracy") == history.best_epoch("val_loss") == 2

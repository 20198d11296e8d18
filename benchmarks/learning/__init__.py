"""What rounds, reward and warm start add: arms of runs by the product, compared in pairs.

An arm is a `RestEMRun` of the embedded profile with a few settings of its own, which the product
runs as `seal run` does. Each finished run leaves a small summary in docs/learning; the page, its
figures and its picture are made of the summaries alone, so that any machine can go on.

    plan        which arms, on what, how often: one table
    execute     one run after the other on one model; what two runs share is done once
    summary     what is kept of a run
    figures     means and paired differences with their intervals
    page        docs/learning.md, docs/learning.json and docs/learning.svg
"""

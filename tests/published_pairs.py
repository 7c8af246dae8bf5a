"""A row as SHP and one as the Stack Exchange preferences are published."""

SHP = {
    "post_id": "qt3nxl",
    "domain": "askculinary_train",
    "upvote_ratio": 0.98,
    "history": "How to peel garlic?",
    "c_root_id_A": "h1",
    "c_root_id_B": "h2",
    "created_at_utc_A": 1,
    "created_at_utc_B": 2,
    "score_A": 30,
    "score_B": 10,
    "human_ref_A": "Crush it.",
    "human_ref_B": "Buy it peeled.",
    "labels": 1,
    "seconds_difference": 1.0,
    "score_ratio": 3.0,
}


def answer(number, text, score, selected=False):
    return {
        "answer_id": number,
        "author": "Ann",
        "author_id": 1,
        "author_profile": "https://ai.stackexchange.com/users/1",
        "pm_score": score,
        "selected": selected,
        "text": text,
    }


STACK_EXCHANGE = {
    "qid": 5,
    "question": "<p>Why?</p>",
    "answers": [
        answer(1, "so", 1),
        answer(2, "because", 4, True),
        answer(3, "who knows", -1),
        answer(4, "it is", 4),
    ],
    "date": "2016/08/02",
    "metadata": ["https://ai.stackexchange.com/questions/5", "https://ai.stackexchange.com", "https://x.org"],
}

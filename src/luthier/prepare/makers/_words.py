"""Word lists of several languages."""

from __future__ import annotations


def word_set(text: str) -> frozenset[str]:
    """The words of a text, apart by blanks."""
    return frozenset(text.split())


STOP = {
    "en": "a about above after again all also am an and any are as at be because been before being below between both "
    "but by can could did do does doing done down during each either else ever every few for from further get "
    "had has have having he her here hers him his how i if in into is it its itself just may me might more most "
    "must my no nor not now of off on once one only or other our out over own per same shall she should so some "
    "such than that the their them then there these they this those through to too under until up upon us use "
    "very via was we were what when where whether which while who whom whose why will with within would yes you "
    "your yours give given according say says tell many much",
    "de": "aber alle allem allen aller alles als also am an ander andere auch auf aus bei beim bin bis bist da damit "
    "dann das dass dein dem den denn der des dessen die dies diese diesem diesen dieser dieses doch dort du durch "
    "ein eine einem einen einer eines er es etwas euch für gegen gibt hab haben hat hatte hier hin ich ihm ihn "
    "ihnen ihr ihre im in ist ja jede jedem jeden jeder jedes kann kein keine können man mein mich mir mit muss "
    "müssen nach nicht noch nun nur ob oder ohne sehr sein seine sich sie sind so soll sollen sollte sondern über "
    "um und uns unser unter vom von vor wann war waren warum was wegen weil welche welcher welches wenn wer werde "
    "werden wie wieder will wir wird wo wofür wurde zu zum zur zwischen",
    "fr": "au aux avec ce ces cette comme comment dans de des du elle en est et être il ils je la le les leur "
    "leurs lui "
    "mais ne nos notre nous on ou où par pas pour pourquoi quand que quel quelle quelles quels qui quoi sa se ses "
    "son sont sur un une vos votre vous y a à ont plus peut si sans",
    "es": "a al como cómo con cuál cuáles cuándo de del desde dónde el ella en entre es esta este esto ha hay "
    "la las lo "
    "los más me mi no nos o para pero por porque qué que quién se ser si sin sobre son su sus también un una y ya",
    "it": "a ai al alla anche che chi ci come con cosa da dal dalla dei del della di dove e è gli ha i il in la le lo "
    "ma nel nella no non o per perché più quali quale quando se si sono su sul un una uno",
    "nl": "aan als bij dat de deze die dit door een en er het hoe hun ik in is je kan maar met naar niet nog of om ook "
    "op over te tot uit van voor waar wanneer waarom wat we welke wie wij worden wordt zijn zo",
    "pt": "a ao aos as com como da das de do dos e é em entre essa esse esta este eu foi já mais mas na nas não "
    "no nos o "
    "onde os ou para pela pelo por porque quando que quem se sem ser seu sua são também um uma",
}
STOP_WORDS = {language: word_set(words) for language, words in STOP.items()}
ABBREVIATIONS = word_set(
    "e.g i.e etc vs no nr art fig eq sec ch vol pp p dr mr mrs ms prof st inc ltd co corp dept approx max min "
    "tel ext z.b d.h u.a bzw ca evtl ggf inkl usw abs bspw vgl s u.s u.k a.m p.m jan feb mar apr jun jul aug "
    "sep sept oct nov dec")

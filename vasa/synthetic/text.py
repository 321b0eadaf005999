"""Things to say: template sentences, numbers, interjections, invented words, words of other languages.

The vocabulary is ours and chosen so that every English phone and most clusters occur. Templates are
split: those of `HELD_OUT` are only for validation.
"""

from __future__ import annotations

import torch
from torch import Generator

from .chance import choose, happens

_WORDS = {
    "name": "Anna Ben Chloe David Ella Fiona George Hugh Iris Jack Kathy Leo Maya Noah Olive Paul Quinn "
    "Rose Sam Theo Ursula Victor Wendy Xavier Yvonne Zach Barbara Philip Judith Geoffrey",
    "thing": "apple bottle camera doorbell engine feather garden hammer island jacket kettle ladder "
    "mirror notebook orange piano quilt ribbon shadow teapot umbrella violin window yacht zipper basket "
    "thumb book moth bath treasure judge cheese spring scarf bridge cloud voice toy boat pebble map lamp "
    "pump fire mouse leather vision garage chair fish",
    "things": "apples boxes cups dogs eggs fibres gifts hats ideas jokes keys lemons maps nuts opinions "
    "pages questions roofs ships tables views waves years clothes months wolves leaves buttons people "
    "pumps bulbs",
    "place": "beach bank church desert elevator forest garage hospital island kitchen library museum "
    "northern village old theatre park quiet square river station university valley workshop zoo harbour "
    "bakery bathroom mountain",
    "quality": "awful blue brave clever dusty empty fresh gentle huge icy jolly kind loud modern narrow "
    "odd polite quick rough smooth thick usual very bright warm young yellow strange purple thin damp "
    "royal noisy cheap pure measured",
    "did": "bought carried dropped found gave away hid invented joined kept lost moved noticed opened "
    "painted repaired sold thanked used wanted watched fixed measured chose broke forgot shook taught "
    "pushed weighed borrowed",
    "do": "buy carry drop find fix get hide imagine join keep lose move notice open paint repair sell "
    "touch use wash explain believe change describe pour measure throw choose remember forgive",
    "went": "walked drove cycled flew hurried moved ran swam travelled wandered crawled jumped marched",
    "how": "badly calmly easily finally gently happily loudly merrily nearly often perhaps quietly "
    "rarely slowly together usually very well without fear with pleasure in five minutes this evening "
    "tomorrow",
    "time": "Monday Tuesday Wednesday Thursday Friday Saturday Sunday midnight noon dawn spring summer "
    "autumn winter January February June August yesterday tonight",
    "oh": "oh|ah|well|hmm|yes|no|wow|hey|hooray|oops|please|thank you|of course|maybe|all right|good "
    "morning|you know|I see|never mind|absolutely|sure|goodbye|mhm|aha|sorry",
}  # fmt: skip
_PHRASES = {
    "place": ("northern village", "old theatre", "quiet square"),
    "quality": ("very bright",),
    "did": ("gave away",),
    "how": ("very well", "without fear", "with pleasure", "in five minutes", "this evening"),
}

TRAINING = (
    "{name} {did} the {quality} {thing} near the {place}.",
    "Did {name} really {do} that {thing} on {time}?",
    "I would like to {do} {number} {things}, please.",
    "{oh}, the {thing} is {quality}, but the {things} are {quality}.",
    "We {went} to the {place} and {did} a {thing} {how}.",
    "My {thing} weighs {number} pounds and costs {number} dollars.",
    "Why should we {do} the {things} before {time}?",
    "{name} and {name} {went} past the {place} {how}.",
    "Put the {thing} between the {thing} and the {things}.",
    "There were {number} {things} at the {place}, all of them {quality}.",
    "{oh}! That is a {quality} {thing}.",
    "She thought about the {quality} {thing} and {did} it {how}.",
    "Nobody {did} the {things} at the {place} in {time}.",
    "Please {do} my {thing} before you {do} the {things}.",
    "If {name} can {do} it, you can {do} it {how}.",
    "The {place} was {quality}, {quality} and full of {things}.",
    "He showed us a {thing}, a {quality} {thing}, and {number} {things}.",
    "Call me at {number}, {number}, {number}.",
    "Somebody should {do} this {thing}; it looks {quality}.",
    "What a {quality} {place}, said {name}, and {did} the {thing}.",
    "I never {did} a {thing} as {quality} as this one.",
    "Both of us {went} home {how}, because the {place} was {quality}.",
    "How many {things} did {name} {do} in {time}?",
    "{oh}, {oh}, {name}, just {do} the {thing}.",
    "On {time} we {do} {things}, and on {time} we {do} nothing.",
    "The {quality} {thing} belongs to {name}, not to me.",
    "{nonsense} {nonsense} means {quality} {thing} in our language.",
    "They call it a {nonsense}, or sometimes {nonsense} {nonsense}.",
    "{nonsense} {nonsense}, {nonsense} {nonsense} {nonsense}.",
    "{number}, {number}, {number}, {number}.",
    "{oh}. I mean, {name} {did} it {how}.",
    "Five big boys bought bubble gum from the {place}.",
    "Maybe my mother's {thing} made {name} move the {things}.",
    "Few voices offered {quality} coffee for the {things}.",
    "You see, we need three {things} each week.",
    "Who threw the {thing} through the {place} window?",
    "The usual pleasure of {quality} {things} is measured {how}.",
)
HELD_OUT = (
    "When {name} came back from the {place}, a {quality} {thing} was waiting.",
    "Tell {name} that the {things} will arrive by {time}.",
    "I have {number} reasons to {do} a {thing}, and {number} to leave it.",
    "Could you {do} these {things} for {name}?",
    "Honestly, my {thing} has always been more {quality} than yours.",
    "Every {time} they {went} around the {place} {how}.",
    "{oh}, who left {number} {things} behind the {thing}?",
    "Nothing at the {place} is as {quality} as {name}'s {thing}.",
    "First they {did} a {thing}, then {name} {did} another.",
    "Remember to {do} the {quality} {thing}, or {name} will {do} it {how}.",
)

_ONSETS = (
    "b bl br ch d dr f fl fr g gl gr h j k kl kr kw l m n p pl pr r s sh shr sk sl sm sn sp spl st str sw "
    "t th tr tw v w y z"
)
_NUCLEI = "a e i o u ee oo ai oa ow oi ar er or ay ie"
_CODAS = "b d f g k l m n p r s t v z sh ch th ng nk nt nd mp lp st ft x lm rb"

FOREIGN: dict[str, str] = {
    "it": "buongiorno ciao grazie prego mamma papà bambino giardino finestra cucchiaio zucchero bello "
    "piccolo grande rosso verde mangiare parlare camminare oggi domani sempre forse acqua vino pane "
    "gnocchi famiglia montagna spiaggia amico libro scuola treno vuole compra apre chiude sette otto "
    "quando perché dove e ma con senza la il un una",
    "cs": "dobrý den děkuji prosím máma táta dítě zahrada okno lžíce cukr krásný malý velký červený "
    "zelený jíst mluvit chodit dnes zítra vždy možná voda víno chléb řeka hora pláž přítel kniha škola "
    "vlak chce kupuje otvírá zavírá sedm osm když proč kde a ale s bez moře úsměv běží pěkný",
    "de": "guten Morgen danke bitte Mutter Vater Kind Garten Fenster Löffel Zucker schön klein groß rot "
    "grün essen sprechen gehen heute morgen immer vielleicht Wasser Pfeffer Brot Fluss Berg Strand "
    "Freund Buch Schule Zug und aber",
    "fr": "bonjour merci maman papa enfant jardin fenêtre cuillère sucre beau petit grand rouge vert "
    "manger parler marcher aujourd'hui demain toujours peut-être eau vin pain rivière montagne plage ami "
    "livre école train et mais un",
    "es": "buenos días gracias madre padre niño jardín ventana cuchara azúcar hermoso pequeño grande "
    "rojo verde comer hablar caminar hoy mañana siempre quizás agua vino pan río montaña playa amigo "
    "libro escuela tren y pero con",
    "pt-br": "bom dia obrigado mãe pai criança jardim janela colher açúcar bonito pequeno grande "
    "vermelho verde comer falar andar hoje amanhã sempre talvez água vinho pão rio montanha praia amigo "
    "livro escola trem e mas com",
    "nl": "goedemorgen bedankt moeder vader kind tuin raam lepel suiker mooi klein groot rood groen eten "
    "spreken lopen vandaag morgen altijd misschien water wijn brood rivier berg strand vriend boek "
    "school trein en maar met",
    "sv": "god morgon tack mamma pappa barn trädgård fönster sked socker vacker liten stor röd grön äta "
    "tala gå idag imorgon alltid kanske vatten vin bröd flod berg strand vän bok skola tåg och men med",
    "pl": "dzień dobry dziękuję mama tata dziecko ogród okno łyżka cukier piękny mały duży czerwony "
    "zielony jeść mówić chodzić dziś jutro zawsze może woda wino chleb rzeka góra plaża przyjaciel "
    "książka szkoła pociąg i ale z",
    "ru": "доброе утро спасибо мама папа ребёнок сад окно ложка сахар красивый маленький большой красный "
    "зелёный есть говорить ходить сегодня завтра всегда может вода вино хлеб река гора пляж друг книга "
    "школа поезд и но с",
    "fi": "hyvää huomenta kiitos äiti isä lapsi puutarha ikkuna lusikka sokeri kaunis pieni suuri "
    "punainen vihreä syödä puhua kävellä tänään huomenna aina ehkä vesi viini leipä joki vuori ranta "
    "ystävä kirja koulu juna ja mutta",
    "hu": "jó reggelt köszönöm anya apa gyerek kert ablak kanál cukor szép kicsi nagy piros zöld enni "
    "beszélni menni ma holnap mindig talán víz bor kenyér folyó hegy part barát könyv iskola vonat és de",
    "tr": "günaydın teşekkürler anne baba çocuk bahçe pencere kaşık şeker güzel küçük büyük kırmızı "
    "yeşil yemek konuşmak yürümek bugün yarın her zaman belki su şarap ekmek nehir dağ plaj arkadaş "
    "kitap okul tren ve ama",
    "el": "καλημέρα ευχαριστώ μητέρα πατέρας παιδί κήπος παράθυρο κουτάλι ζάχαρη όμορφος μικρός μεγάλος "
    "κόκκινο πράσινο σήμερα αύριο πάντα ίσως νερό κρασί ψωμί ποτάμι βουνό παραλία φίλος βιβλίο σχολείο "
    "τρένο και αλλά",
    "ro": "bună dimineața mulțumesc mamă tată copil grădină fereastră lingură zahăr frumos mic mare roșu "
    "verde a mânca a vorbi astăzi mâine mereu poate apă vin pâine râu munte plajă prieten carte școală "
    "tren și dar",
    "id": "selamat pagi terima kasih ibu bapak anak kebun jendela sendok gula indah kecil besar merah "
    "hijau makan bicara jalan hari ini besok selalu mungkin air roti sungai gunung pantai teman buku "
    "sekolah kereta dan tetapi",
    "hi": "नमस्ते धन्यवाद माँ पिता बच्चा बगीचा खिड़की चम्मच चीनी सुंदर छोटा बड़ा लाल हरा खाना बोलना चलना "
    "आज कल हमेशा शायद पानी रोटी नदी पहाड़ दोस्त किताब स्कूल और लेकिन",
    "mr": "नमस्कार धन्यवाद आई बाबा मूल बाग खिडकी चमचा साखर सुंदर लहान मोठा लाल हिरवा पाणी भाकरी नदी डोंगर "
    "मित्र पुस्तक शाळा आणि पण आज उद्या नेहमी",
    "te": "నమస్కారం అమ్మ నాన్న పిల్లవాడు తోట కిటికీ చెంచా చక్కెర అందమైన చిన్న పెద్ద ఎరుపు నీరు రొట్టె నది కొండ "
    "పుస్తకం బడి మరియు కానీ ఈరోజు రేపు",
    "ca": "bon dia gràcies mare pare nen jardí finestra cullera sucre bonic petit gran vermell verd menjar parlar "
    "caminar avui demà sempre potser aigua vi pa riu muntanya platja amic llibre escola tren i però amb",
    "eo": "bonan matenon dankon patrino patro infano ĝardeno fenestro kulero sukero bela malgranda "
    "granda ruĝa verda manĝi paroli marŝi hodiaŭ morgaŭ ĉiam eble akvo vino pano rivero monto amiko "
    "libro lernejo trajno kaj sed",
    "sw": "habari asante mama baba mtoto bustani dirisha kijiko sukari nzuri ndogo kubwa nyekundu kijani "
    "kula sema tembea leo kesho daima labda maji mkate mto mlima pwani rafiki kitabu shule treni na "
    "lakini",
    "cmn-latn-pinyin": "ni3 hao3 xie4 xie5 ma1 ma5 ba4 ba5 hai2 zi5 hua1 yuan2 chuang1 hu5 tang2 mei3 "
    "li4 xiao3 da4 hong2 lü4 chi1 fan4 shuo1 hua4 zou3 lu4 jin1 tian1 ming2 tian1 shui3 shan1 peng2 you5 "
    "shu1 xue2 xiao4 he2 wo3",
}  # fmt: skip
"""Words of other languages, keyed by espeak-ng's language code."""


def _vocabulary() -> dict[str, list[str]]:
    """Word lists with the multi-word phrases kept whole."""
    words: dict[str, list[str]] = {}
    for kind, text in _WORDS.items():
        if kind == "oh":
            words[kind] = text.split("|")
            continue
        for phrase in _PHRASES.get(kind, ()):
            text = text.replace(phrase, phrase.replace(" ", "_"))
        words[kind] = [word.replace("_", " ") for word in text.split()]
    return words


_VOCABULARY = _vocabulary()


def nonsense_word(generator: Generator) -> str:
    """An invented English-looking word of one to three syllables."""
    syllables = int(torch.randint(1, 4, (1,), generator=generator))
    parts = [choose(_ONSETS.split(), generator) + choose(_NUCLEI.split(), generator) for _ in range(syllables)]
    return "".join(parts) + choose(_CODAS.split(), generator)


def number(generator: Generator) -> str:
    """A number as digits, small ones more often."""
    digits = int(torch.randint(1, 5, (1,), generator=generator))
    return str(int(torch.randint(0, 10**digits, (1,), generator=generator)))


def sentence(generator: Generator, held_out: bool = False) -> str:
    """One English sentence.

    Args:
        held_out: take a template that training never sees.
    """
    template = choose(HELD_OUT if held_out else TRAINING, generator)
    parts = template.split("{")
    text = parts[0]
    for part in parts[1:]:
        kind, rest = part.split("}", 1)
        if kind == "number":
            word = number(generator)
        elif kind == "nonsense":
            word = nonsense_word(generator)
        else:
            word = choose(_VOCABULARY[kind], generator)
        text += word + rest
    return text[0].upper() + text[1:]


def foreign_sentence(language: str, generator: Generator) -> str:
    """Four to nine words of a language of `FOREIGN` in any order, sometimes with a comma or a number."""
    words = FOREIGN[language].split()
    count = int(torch.randint(4, 10, (1,), generator=generator))
    chosen = [choose(words, generator) for _ in range(count)]
    if happens(0.3, generator):
        chosen[count // 2] += ","
    if happens(0.2, generator):
        chosen.append(number(generator))
    return " ".join(chosen) + choose(".?.!.", generator)


def passage(language: str, seconds: float, generator: Generator, held_out: bool = False) -> str:
    """Sentences that take about `seconds` to say at a normal speed (15 letters a second)."""
    text = ""
    while len(text) < 11.0 * seconds:
        english = language.startswith("en")
        text += (sentence(generator, held_out) if english else foreign_sentence(language, generator)) + " "
    return text.strip()

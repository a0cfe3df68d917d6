"""Captions in other languages, from tables of words: a row is an English meaning, a column a language.

Words for a mood agree with the word for music, so that "música alegre" and "fröhliche Musik" are right; frames name
instruments only where they need no case and no article. `MEANINGS` gives the English of each word, for the text tower's
vocabulary (training/text_teacher.py); this module imports nothing of its neighbours for that reason.
"""

import random
import re
from collections.abc import Mapping
from typing import Any

LANGUAGES = ("es", "fr", "de", "it", "pt", "nl", "pl", "ru", "zh", "ja", "ko", "tr")


def _table(text: str) -> dict[str, dict[str, str]]:
    """Reads lines of `meaning: word | word | ...`, a word for each of LANGUAGES; an indented line goes on the last."""
    table = {}
    for line in text.strip().replace("\n ", " ").splitlines():
        meaning, _, words = line.partition(": ")
        table[meaning.strip()] = dict(zip(LANGUAGES, (word.strip() for word in words.split("|")), strict=True))
    return table


STYLES = _table("""
lo-fi hip hop: hip hop lo-fi | hip-hop lo-fi | Lo-Fi-Hip-Hop | hip hop lo-fi | hip hop lo-fi | lo-fi hiphop |
    lo-fi hip-hop | лоу-фай хип-хоп | 低保真嘻哈 | ローファイ・ヒップホップ | 로파이 힙합 | lo-fi hip hop
house: house | house | House | house | house | house | house | хаус | 浩室舞曲 | ハウス | 하우스 | house
techno: techno | techno | Techno | techno | techno | techno | techno | техно | 铁克诺 | テクノ | 테크노 | tekno
ambient: ambient | ambient | Ambient | ambient | ambient | ambient | ambient | эмбиент | 氛围音乐 | アンビエント |
    앰비언트 | ambient
rock: rock | rock | Rock | rock | rock | rock | rock | рок | 摇滚 | ロック | 록 | rock
jazz swing: jazz swing | jazz swing | Swing-Jazz | jazz swing | jazz swing | swing jazz | jazz swingowy | свинг |
    摇摆爵士 | スウィング・ジャズ | 스윙 재즈 | swing caz
bossa nova: bossa nova | bossa nova | Bossa Nova | bossa nova | bossa nova | bossanova | bossa nova | босса-нова |
    波萨诺瓦 | ボサノバ | 보사노바 | bossa nova
waltz: vals | valse | Walzer | valzer | valsa | wals | walc | вальс | 华尔兹 | ワルツ | 왈츠 | vals
march: marcha | marche | Marsch | marcia | marcha | mars | marsz | марш | 进行曲 | 行進曲 | 행진곡 | marş
folk: folk | folk | Volksmusik | folk | música folclórica | volksmuziek | muzyka ludowa | народная музыка | 民谣 |
    フォーク | 포크 음악 | halk müziği
baroque chorale: coral barroco | choral baroque | Choral | corale barocco | coral barroco | barokkoraal |
    chorał barokowy | барочный хорал | 巴洛克圣咏 | バロックのコラール | 바로크 코랄 | barok koral
string quartet: música de cámara | musique de chambre | Kammermusik | musica da camera | música de câmara |
    kamermuziek | muzyka kameralna | камерная музыка | 室内乐 | 室内楽 | 실내악 | oda müziği
solo piano: pieza lírica | pièce lyrique | lyrisches Stück | pezzo lirico | peça lírica | lyrisch stuk |
    utwór liryczny | лирическая пьеса | 抒情小品 | 抒情小曲 | 서정 소곡 | lirik parça
music box: canción de cuna | berceuse | Wiegenlied | ninna nanna | canção de ninar | slaapliedje | kołysanka |
    колыбельная | 摇篮曲 | 子守唄 | 자장가 | ninni
chiptune: música de videojuegos | musique de jeu vidéo | Videospielmusik | musica da videogioco |
    música de videogame | gamemuziek | muzyka z gier | музыка из видеоигр | 电子游戏音乐 | ゲーム音楽 | 게임 음악 |
    oyun müziği
synthwave: synthwave | synthwave | Synthwave | synthwave | synthwave | synthwave | synthwave | синтвейв | 合成器浪潮 |
    シンセウェイヴ | 신스웨이브 | synthwave
blues: blues | blues | Blues | blues | blues | blues | blues | блюз | 蓝调 | ブルース | 블루스 | blues
funk: funk | funk | Funk | funk | funk | funk | funk | фанк | 放克 | ファンク | 펑크 | funk
reggae: reggae | reggae | Reggae | reggae | reggae | reggae | reggae | регги | 雷鬼 | レゲエ | 레게 | reggae
country: country | country | Country | country | country | country | country | кантри | 乡村音乐 | カントリー |
    컨트리 | country
disco: disco | disco | Disco | disco | disco | disco | disco | диско | 迪斯科 | ディスコ | 디스코 | disko
drum and bass: drum and bass | drum and bass | Drum and Bass | drum and bass | drum and bass | drum-and-bass |
    drum and bass | драм-н-бейс | 鼓打贝斯 | ドラムンベース | 드럼 앤 베이스 | drum and bass
trap: trap | trap | Trap | trap | trap | trap | trap | трэп | 陷阱音乐 | トラップ | 트랩 | trap
metal: metal | métal | Metal | metal | metal | metal | metal | метал | 金属乐 | メタル | 메탈 | metal
tango: tango | tango | Tango | tango | tango | tango | tango | танго | 探戈 | タンゴ | 탱고 | tango
samba: samba | samba | Samba | samba | samba | samba | samba | самба | 桑巴 | サンバ | 삼바 | samba
celtic: música celta | musique celtique | keltische Musik | musica celtica | música celta | keltische muziek |
    muzyka celtycka | кельтская музыка | 凯尔特音乐 | ケルト音楽 | 켈트 음악 | Kelt müziği
cinematic orchestra: música de cine | musique de film | Filmmusik | musica da film | música de cinema | filmmuziek |
    muzyka filmowa | музыка для кино | 电影配乐 | 映画音楽 | 영화 음악 | film müziği
gospel: gospel | gospel | Gospel | gospel | gospel | gospel | gospel | госпел | 福音音乐 | ゴスペル | 가스펠 | gospel
ragtime: ragtime | ragtime | Ragtime | ragtime | ragtime | ragtime | ragtime | рэгтайм | 拉格泰姆 | ラグタイム |
    래그타임 | ragtime
soul: soul | soul | Soul | soul | soul | soul | soul | соул | 灵魂乐 | ソウル | 소울 | soul
latin pop: pop latino | pop latino | Latin-Pop | pop latino | pop latino | latin pop | latynoski pop |
    латиноамериканская поп-музыка | 拉丁流行 | ラテンポップ | 라틴 팝 | Latin pop
""")
INSTRUMENTS = _table("""
grand piano: piano | piano | Klavier | pianoforte | piano | piano | fortepian | рояль | 钢琴 | ピアノ | 피아노 |
    piyano
electric piano: piano eléctrico | piano électrique | E-Piano | piano elettrico | piano elétrico | elektrische piano |
    pianino elektryczne | электропиано | 电钢琴 | エレクトリックピアノ | 전자 피아노 | elektro piyano
harpsichord: clavecín | clavecin | Cembalo | clavicembalo | cravo | klavecimbel | klawesyn | клавесин | 羽管键琴 |
    チェンバロ | 하프시코드 | klavsen
church organ: órgano | orgue | Orgel | organo | órgão | orgel | organy | орган | 管风琴 | パイプオルガン |
    파이프 오르간 | org
hammond organ: órgano Hammond | orgue Hammond | Hammondorgel | organo Hammond | órgão Hammond | hammondorgel |
    organy Hammonda | орган Хаммонда | 哈蒙德风琴 | ハモンドオルガン | 해먼드 오르간 | Hammond org
reed organ: armonio | harmonium | Harmonium | armonium | harmônio | harmonium | fisharmonia | фисгармония | 簧风琴 |
    リードオルガン | 풍금 | armonyum
music box: caja de música | boîte à musique | Spieluhr | carillon | caixinha de música | speeldoos | pozytywka |
    музыкальная шкатулка | 八音盒 | オルゴール | 오르골 | müzik kutusu
celesta: celesta | célesta | Celesta | celesta | celesta | celesta | czelesta | челеста | 钢片琴 | チェレスタ |
    첼레스타 | çelesta
vibraphone: vibráfono | vibraphone | Vibraphon | vibrafono | vibrafone | vibrafoon | wibrafon | вибрафон | 颤音琴 |
    ヴィブラフォン | 비브라폰 | vibrafon
marimba: marimba | marimba | Marimba | marimba | marimba | marimba | marimba | маримба | 马林巴 | マリンバ | 마림바 |
    marimba
kalimba: kalimba | kalimba | Kalimba | kalimba | kalimba | kalimba | kalimba | калимба | 拇指琴 | カリンバ | 칼림바 |
    kalimba
steel drums: tambor metálico | steel drum | Steeldrum | steel drum | tambor de aço | steeldrum | bębny stalowe |
    стальной барабан | 钢鼓 | スティールパン | 스틸 드럼 | çelik davul
nylon guitar: guitarra española | guitare classique | Konzertgitarre | chitarra classica | violão | klassieke gitaar |
    gitara klasyczna | классическая гитара | 古典吉他 | クラシックギター | 클래식 기타 | klasik gitar
acoustic guitar: guitarra acústica | guitare acoustique | Akustikgitarre | chitarra acustica | guitarra acústica |
    akoestische gitaar | gitara akustyczna | акустическая гитара | 木吉他 | アコースティックギター | 통기타 |
    akustik gitar
jazz guitar: guitarra de jazz | guitare jazz | Jazzgitarre | chitarra jazz | guitarra de jazz | jazzgitaar |
    gitara jazzowa | джазовая гитара | 爵士吉他 | ジャズギター | 재즈 기타 | caz gitarı
clean electric guitar: guitarra eléctrica | guitare électrique | E-Gitarre | chitarra elettrica | guitarra elétrica |
    elektrische gitaar | gitara elektryczna | электрогитара | 电吉他 | エレキギター | 전기 기타 | elektro gitar
distorted guitar: guitarra distorsionada | guitare saturée | Distortion-Gitarre | chitarra distorta |
    guitarra distorcida | vervormde gitaar | przesterowana gitara | гитара с дисторшном | 失真吉他 |
    ディストーションギター | 디스토션 기타 | distorsiyonlu gitar
banjo: banjo | banjo | Banjo | banjo | banjo | banjo | bandżo | банджо | 班卓琴 | バンジョー | 밴조 | banço
sitar: sitar | sitar | Sitar | sitar | sitar | sitar | sitar | ситар | 西塔琴 | シタール | 시타르 | sitar
violin: violín | violon | Geige | violino | violino | viool | skrzypce | скрипка | 小提琴 | ヴァイオリン | 바이올린 |
    keman
viola: viola | alto | Bratsche | viola | viola | altviool | altówka | альт | 中提琴 | ヴィオラ | 비올라 | viyola
cello: violonchelo | violoncelle | Cello | violoncello | violoncelo | cello | wiolonczela | виолончель | 大提琴 |
    チェロ | 첼로 | viyolonsel
fiddle: violín folk | violon folk | Fiedel | violino folk | rabeca | folkviool | skrzypce ludowe | народная скрипка |
    民间提琴 | フィドル | 피들 | halk kemanı
string ensemble: cuerdas | cordes | Streichorchester | archi | cordas | strijkers | smyczki | струнные | 弦乐 |
    ストリングス | 현악 합주 | yaylılar
pizzicato strings: cuerdas en pizzicato | cordes en pizzicato | Pizzicato-Orchester | archi pizzicati |
    cordas em pizzicato | pizzicato strijkers | smyczki pizzicato | струнные пиццикато | 拨弦弦乐 |
    ピチカートのストリングス | 피치카토 현악 | pizzicato yaylılar
harp: arpa | harpe | Harfe | arpa | harpa | harp | harfa | арфа | 竖琴 | ハープ | 하프 | arp
trumpet: trompeta | trompette | Trompete | tromba | trompete | trompet | trąbka | труба | 小号 | トランペット |
    트럼펫 | trompet
muted trumpet: trompeta con sordina | trompette bouchée | Trompete mit Dämpfer | tromba con sordina |
    trompete com surdina | trompet met demper | trąbka z tłumikiem | труба с сурдиной | 弱音小号 |
    ミュートトランペット | 약음기 트럼펫 | sürdinli trompet
trombone: trombón | trombone | Posaune | trombone | trombone | trombone | puzon | тромбон | 长号 | トロンボーン |
    트롬본 | trombon
french horn: trompa | cor d'harmonie | Waldhorn | corno francese | trompa | waldhoorn | waltornia | валторна | 圆号 |
    ホルン | 호른 | korno
brass section: metales | cuivres | Bläsersatz | ottoni | metais | koperblazers | instrumenty dęte blaszane |
    медные духовые | 铜管乐 | 金管楽器 | 금관 악기 | bakır üflemeliler
saxophone: saxofón | saxophone | Saxofon | sassofono | saxofone | saxofoon | saksofon | саксофон | 萨克斯 | サックス |
    색소폰 | saksafon
clarinet: clarinete | clarinette | Klarinette | clarinetto | clarinete | klarinet | klarnet | кларнет | 单簧管 |
    クラリネット | 클라리넷 | klarnet
oboe: oboe | hautbois | Oboe | oboe | oboé | hobo | obój | гобой | 双簧管 | オーボエ | 오보에 | obua
bassoon: fagot | basson | Fagott | fagotto | fagote | fagot | fagot | фагот | 大管 | ファゴット | 바순 | fagot
flute: flauta | flûte | Querflöte | flauto | flauta | dwarsfluit | flet | флейта | 长笛 | フルート | 플루트 | flüt
recorder: flauta dulce | flûte à bec | Blockflöte | flauto dolce | flauta doce | blokfluit | flet prosty |
    блокфлейта | 竖笛 | リコーダー | 리코더 | blok flüt
pan flute: flauta de pan | flûte de pan | Panflöte | flauto di Pan | flauta de pã | panfluit | fletnia Pana |
    флейта Пана | 排箫 | パンフルート | 팬플루트 | pan flüt
whistle: flautín irlandés | flageolet irlandais | Tin Whistle | flautino irlandese | flautim irlandês | tin whistle |
    flażolet irlandzki | ирландский вистл | 锡笛 | ティンホイッスル | 틴 휘슬 | İrlanda düdüğü
harmonica: armónica | harmonica | Mundharmonika | armonica a bocca | gaita de boca | mondharmonica |
    harmonijka ustna | губная гармошка | 口琴 | ハーモニカ | 하모니카 | mızıka
choir: coro | chœur | Chor | coro | coro | koor | chór | хор | 合唱团 | 合唱団 | 합창단 | koro
synth choir: coro sintético | chœur synthétique | Synthesizer-Chor | coro sintetico | coro sintético |
    synthesizerkoor | chór syntezatorowy | синтезаторный хор | 合成人声 | シンセ・クワイア | 신스 합창단 |
    sentezleyici koro
accordion: acordeón | accordéon | Akkordeon | fisarmonica | acordeão | accordeon | akordeon | аккордеон | 手风琴 |
    アコーディオン | 아코디언 | akordeon
synth lead: sintetizador | synthétiseur | Synthesizer | sintetizzatore | sintetizador | synthesizer | syntezator |
    синтезатор | 合成器 | シンセサイザー | 신시사이저 | sentezleyici
""")
SAME_INSTRUMENT = {  # which people call by one name
    "overdriven guitar": "distorted guitar",
    **dict.fromkeys(
        ("supersaw synth", "acid synth", "synth pluck", "square wave lead", "pulse wave lead"), "synth lead"
    ),
    **dict.fromkeys(("synth bell", "synth pad", "synth stabs"), "synth lead"),
}
MOODS = _table("""
happy: alegre | joyeuse | fröhliche | allegra | alegre | vrolijke | wesoła | весёлая | 欢快 | 楽しい | 즐거운 | neşeli
playful: juguetona | espiègle | verspielte | giocosa | brincalhona | speelse | figlarna | игривая | 俏皮 |
    遊び心のある | 장난스러운 | oyuncu
calm: tranquila | calme | ruhige | tranquilla | calma | rustige | spokojna | спокойная | 平静 | 静かな | 차분한 |
    sakin
dreamy: soñadora | rêveuse | verträumte | sognante | sonhadora | dromerige | marzycielska | мечтательная | 梦幻 |
    夢見るような | 몽환적인 | rüya gibi
majestic: majestuosa | majestueuse | majestätische | maestosa | majestosa | plechtige | majestatyczna |
    величественная | 雄伟 | 壮大な | 웅장한 | görkemli
energetic: enérgica | énergique | energische | energica | enérgica | energieke | energiczna | энергичная | 充满活力 |
    エネルギッシュな | 활기찬 | enerjik
sad: triste | triste | traurige | triste | triste | droevige | smutna | грустная | 悲伤 | 悲しい | 슬픈 | hüzünlü
dark: oscura | sombre | düstere | cupa | sombria | duistere | mroczna | мрачная | 阴暗 | 暗い | 어두운 | karanlık
""")
TEMPOS = _table("""
very slow: tempo muy lento | tempo très lent | sehr langsam | tempo molto lento | andamento muito lento |
    heel langzaam | bardzo wolne tempo | очень медленный темп | 非常慢 | とても遅いテンポ | 아주 느린 템포 |
    çok yavaş
slow: tempo lento | tempo lent | langsam | tempo lento | andamento lento | langzaam | wolne tempo | медленный темп |
    慢速 | ゆっくりしたテンポ | 느린 템포 | yavaş
moderate: tempo moderado | tempo modéré | mittleres Tempo | tempo moderato | andamento moderado | matig tempo |
    umiarkowane tempo | умеренный темп | 中速 | 中くらいのテンポ | 보통 템포 | orta tempo
upbeat: tempo animado | tempo animé | flottes Tempo | tempo vivace | andamento animado | vlot tempo | żywe tempo |
    оживлённый темп | 轻快 | 軽快なテンポ | 경쾌한 템포 | canlı tempo
fast: tempo rápido | tempo rapide | schnell | tempo veloce | andamento rápido | snel | szybkie tempo | быстрый темп |
    快速 | 速いテンポ | 빠른 템포 | hızlı
""")
ENSEMBLES = _table("""
solo: solo | solo | solo | solo | solo | solo | solo | соло | 独奏 | 独奏 | 독주 | solo
duo: dúo | duo | Duo | duo | duo | duo | duet | дуэт | 二重奏 | 二重奏 | 이중주 | düet
trio: trío | trio | Trio | trio | trio | trio | trio | трио | 三重奏 | 三重奏 | 삼중주 | üçlü
group: conjunto | ensemble | Ensemble | gruppo | conjunto | ensemble | zespół | ансамбль | 合奏 | 合奏 | 합주 |
    topluluk
""")
DRUMS = _table("""
with drums: con batería | avec batterie | mit Schlagzeug | con batteria | com bateria | met drums | z perkusją |
    с ударными | 有鼓 | ドラム入り | 드럼 있음 | davullu
without drums: sin batería | sans batterie | ohne Schlagzeug | senza batteria | sem bateria | zonder drums |
    bez perkusji | без ударных | 没有鼓 | ドラムなし | 드럼 없음 | davulsuz
""")
MODES = _table("""
major: tono mayor | mode majeur | Dur | modo maggiore | tom maior | majeur | tonacja durowa | мажор | 大调 | 長調 |
    장조 | majör
minor: tono menor | mode mineur | Moll | modo minore | tom menor | mineur | tonacja molowa | минор | 小调 | 短調 |
    단조 | minör
""")
INSTRUMENTAL = _table("""
instrumental: instrumental | instrumental | instrumental | strumentale | instrumental | instrumentaal |
    instrumentalna | инструментальная | 纯音乐 | インストゥルメンタル | 연주곡 | enstrümantal
""")

MUSIC = _table("""
music: música | musique | Musik | musica | música | muziek | muzyka | музыка | 音乐 | 音楽 | 음악 | müzik
""")

FRAMES = {  # sentences; the last of a language is held out
    "es": (
        "Música {mood}: {style} con {lead}, {drums}.",
        "Quiero escuchar música {mood}: {style}, con {lead}.",
        "Para esta noche, música {mood}, {style}; el instrumento principal: {lead}.",
    ),
    "fr": (
        "Musique {mood} : {style} avec {lead}, {drums}.",
        "Je voudrais écouter de la musique {mood} : {style}, avec {lead}.",
        "Pour ce soir, de la musique {mood} : {style}, instrument principal : {lead}.",
    ),
    "de": (
        "{mood} Musik: {style} mit {lead}, {drums}.",
        "Spiel bitte {mood} Musik: {style}, mit {lead}.",
        "Für heute Abend hätte ich gern {mood} Musik: {style}, Hauptinstrument {lead}.",
    ),
    "it": (
        "Musica {mood}: {style} con {lead}, {drums}.",
        "Vorrei ascoltare musica {mood}: {style}, con {lead}.",
        "Per stasera, musica {mood}: {style}, strumento principale {lead}.",
    ),
    "pt": (
        "Música {mood}: {style} com {lead}, {drums}.",
        "Quero ouvir música {mood}: {style}, com {lead}.",
        "Para hoje à noite, música {mood}: {style}, instrumento principal {lead}.",
    ),
    "nl": (
        "{mood} muziek: {style} met {lead}, {drums}.",
        "Ik wil graag {mood} muziek horen: {style} met {lead}.",
        "Voor vanavond {mood} muziek: {style}, hoofdinstrument {lead}.",
    ),
    "pl": (
        "{mood} muzyka: {style}, w roli głównej {lead}, {drums}.",
        "Zagraj coś takiego: {mood} muzyka, {style}, {lead}.",
        "Na dziś wieczór: {mood} muzyka, {style}, główny instrument to {lead}.",
    ),
    "ru": (
        "{mood} музыка: {style}, {lead}, {drums}.",
        "Сыграй что-нибудь такое: {mood} музыка, {style}, главный инструмент — {lead}.",
        "На сегодняшний вечер: {mood} музыка, {style}, в главной роли {lead}.",
    ),
    "zh": (
        "{mood}的{style}，用{lead}演奏，{drums}。",
        "请播放{mood}的{style}，主奏乐器是{lead}。",
        "今晚想听{mood}的{style}，要有{lead}。",
    ),
    "ja": (
        "{lead}で演奏する{mood}雰囲気の{style}、{drums}。",
        "{mood}雰囲気の{style}を{lead}でお願いします。",
        "今夜は{lead}が主役の、{mood}雰囲気の{style}を聴きたいです。",
    ),
    "ko": (
        "{mood} 분위기의 {style}, {lead} 연주, {drums}.",
        "{lead} 연주, {mood} 분위기의 {style} 들려줘.",
        "오늘 밤에는 {mood} 분위기의 {style}, 주인공 악기는 {lead}.",
    ),
    "tr": (
        "{mood} müzik: {style}, {lead}, {drums}.",
        "Bana {mood} bir {style} çal, ana çalgı {lead} olsun.",
        "Bu akşam için {mood} müzik: {style}, başroldeki çalgı {lead}.",
    ),
}
ENDINGS = {"de": "e", "nl": "e"}  # which an adjective loses where it stands alone
ATMOSPHERE = {"ja": "雰囲気", "ko": " 분위기"}  # which follows a mood that stands alone
JOINTS = {"zh": "，", "ja": "、"}


def words_of(tags: Mapping[str, Any], language: str) -> dict[str, str]:
    """The words that the language has for the tags."""
    drums = "with drums" if tags["drums"] else "without drums"
    lead = SAME_INSTRUMENT.get(tags["lead"], tags["lead"])
    rows = {
        "style": STYLES.get(tags["style"]),
        "lead": INSTRUMENTS.get(lead),
        "mood": MOODS.get(tags["mood"]),
        "tempo": TEMPOS.get(tags["tempo"]),
        "ensemble": ENSEMBLES.get(tags.get("ensemble") or ""),
        "drums": DRUMS[drums],
        "mode": MODES.get(tags["mode_word"]),
        "instrumental": INSTRUMENTAL["instrumental"],
    }
    return {name: row[language] for name, row in rows.items() if row is not None}


def is_style_heard(tags: Mapping[str, Any]) -> bool:
    """Whether captions may name the style of a clip; a clip that does not say may be named."""
    return bool(tags.get("style_heard", True))


def write_caption(tags: Mapping[str, Any], rng: random.Random, held_out: bool = False) -> str:
    """A list of words or a sentence in a language drawn at random; the held-out sentence if asked for."""
    language = LANGUAGES[int(rng.random() * len(LANGUAGES))]
    words = words_of(tags, language)
    if not is_style_heard(tags):
        words.pop("style", None)
    *usual, other = FRAMES[language]
    if {"style", "lead", "mood"} <= words.keys() and (held_out or rng.random() < 0.4):
        frames = [other] if held_out else usual
        text = frames[int(rng.random() * len(frames))].format(**words)
        return text[0].upper() + text[1:]
    first = [name for name in ("style", "lead") if name in words]
    others = [name for name in ("mood", "tempo", "ensemble", "drums", "mode", "instrumental") if name in words]
    chosen = first + rng.sample(others, 1 + int(rng.random() * 3))
    if rng.random() < 0.4:
        rng.shuffle(chosen)
    words["mood"] = words.get("mood", "").removesuffix(ENDINGS.get(language, "")) + ATMOSPHERE.get(language, "")
    joint = JOINTS.get(language, ", ")
    text = joint.join(words[name] for name in chosen)
    return text.lower() if rng.random() < 0.5 else text


ENGLISH = {"alto", "choral", "duet", "ensemble", "harmonium", "org", "piano", "synthesizer"}  # mean else in English


def _meanings() -> dict[str, str]:
    """English of each word of the tables in lower case; the first meaning where a word has several."""
    meanings: dict[str, str] = {}
    for table in (INSTRUMENTS, STYLES, MOODS, TEMPOS, ENSEMBLES, DRUMS, MODES, INSTRUMENTAL, MUSIC):
        for meaning, row in table.items():
            for language, word in row.items():
                meanings.setdefault(word.lower(), meaning)
                if table is MOODS:
                    meanings.setdefault(word.lower().removesuffix(ENDINGS.get(language, "")), meaning)
    return {word: meaning for word, meaning in meanings.items() if word != meaning.lower() and word not in ENGLISH}


MEANINGS = _meanings()
UNSPACED = re.compile("[\u3040-\u30ff\u4e00-\u9fff\uac00-\ud7a3]")  # letters of scripts in which words run into others
_KNOWN = re.compile(
    "|".join(
        re.escape(word) if UNSPACED.search(word) else rf"\b{re.escape(word)}\b"
        for word in sorted(MEANINGS, key=len, reverse=True)
    )
)


def in_english(text: str) -> str:
    """The text with the words of the tables in English; what it says otherwise stays as it is."""
    return _KNOWN.sub(lambda found: f" {MEANINGS[found[0]]} ", text.lower())

"""The English words of the captions: for each style, instrument, mood and so on, the ways in which people say it.

A row is a string of phrases, parted by commas; those after a slash are held out: no training caption uses them, and
captions by which to judge prefer them. A phrase that says more than its row does ("piano ballad", "marching band",
"racing") is used only where that is true of the piece: `CLAIMS` lists such words, and captions.py checks them.
"""

from typing import NamedTuple


class Words(NamedTuple):
    """The phrases of one row."""

    usual: tuple[str, ...]
    held_out: tuple[str, ...] = ()


def row(text: str) -> Words:
    """Reads a row of the tables."""
    usual, _, held_out = text.partition(" / ")
    return Words(*(tuple(phrase.strip() for phrase in part.split(",") if phrase.strip()) for part in (usual, held_out)))


def rows(table: dict[str, str]) -> dict[str, Words]:
    return {name: row(text) for name, text in table.items()}


class StyleWords(NamedTuple):
    """`kinds` are mass nouns, `pieces` countable ones, `manners` adjectives for a melody or a player of the style;
    `uses` begin with "for", and `images` are whole clauses about the music."""

    kinds: Words
    pieces: Words
    manners: Words
    uses: Words
    images: Words


def _style(kinds: str, pieces: str, manners: str, uses: str, images: str) -> StyleWords:
    return StyleWords(row(kinds), row(pieces), row(manners), row(uses), row(images))


STYLES = {
    "lo-fi hip hop": _style(
        "lo-fi hip hop, lofi, lo-fi, chillhop, lo-fi study music, dusty hip hop, jazzy lo-fi, lofi hip-hop, lo-fi beats"
        " / lo-fi chill music, bedroom hip hop",
        "lo-fi track, lofi tune, lo-fi hip hop instrumental, chillhop track, lo-fi loop, lo-fi beat, lofi piece"
        " / chilled hip hop instrumental, lo-fi study track",
        "lo-fi, lofi, chillhop / jazz-hop",
        "for studying, for late-night coding, for a rainy afternoon, for a coffee break, for homework, for a cosy café"
        " / for revising late at night",
        "it sounds like an old tape, it suits a rainy window, it could play while you study all night",
    ),
    "house": _style(
        "house, house music, club house, dance music, club music, deep house, four-on-the-floor house, piano house"
        " / Chicago-style house, garage house",
        "house track, club track, dance floor tune, house tune, house anthem, deep house track, dance track"
        " / floor-filler, club banger",
        "house, club / Chicago house",
        "for the dance floor, for a pool party, for a DJ set, for a nightclub, for a fashion show, for a beach club"
        " / for a rooftop party",
        "it was made for the dance floor, clubbers would move to it, it belongs in a DJ set",
    ),
    "techno": _style(
        "techno, techno music, warehouse techno, underground techno, club techno, hard-edged techno"
        " / Berlin-style techno, Detroit-style techno",
        "techno track, techno loop, rave tune, warehouse track, techno tune, techno cut / rave track, techno stomper",
        "techno, rave / industrial-sounding",
        "for a warehouse rave, for a strobe-lit basement, for a rave, for a racing game, for a dark club"
        " / for an all-night rave",
        "the loop churns on and on, it repeats like a machine, it is hypnotic and relentless",
    ),
    "ambient": _style(
        "ambient, ambient music, atmospheric music, ambience, space music, meditation music, background ambience"
        " / soundscape music, floating textures",
        "ambient soundscape, ambient piece, soundscape, atmospheric piece, ambient track, drifting soundscape"
        " / sound bath, atmospheric backdrop",
        "ambient, atmospheric / vaporous",
        "for sleep, for meditation, for yoga, for a nature documentary, for deep concentration, for a planetarium"
        " / for falling asleep",
        "sounds swell and fade, it drifts like fog, it fills the room like mist",
    ),
    "rock": _style(
        "rock, rock music, hard rock, guitar rock, garage rock, classic rock, riff rock, stadium rock"
        " / rock and roll, arena rock",
        "rock song, rock instrumental, rock anthem, rock tune, rock track, rock number / rocker, hard rock tune",
        "rock, rocking / rock-and-roll",
        "for a road trip, for a motorbike advert, for a sports highlight reel, for the gym, for a stadium"
        " / for cruising down the highway",
        "it could fill a stadium, it is made to be played loud, it has the swagger of a garage band",
    ),
    "jazz swing": _style(
        "jazz, swing, swing jazz, swing music, bebop, straight-ahead jazz, mainstream jazz, jazz music, old-school jazz"
        " / hard bop, club jazz",
        "jazz tune, swing number, jazz standard, jazz number, bop tune, jazz piece, swing tune / swinger, bebop number",
        "jazz, jazzy, swinging / bebop-style",
        "for a small club, for a cocktail bar, for a detective film, for a dinner party, for a smoky lounge"
        " / for a speakeasy",
        "it swings, it could be heard in a smoky club, it swings like the old records",
    ),
    "bossa nova": _style(
        "bossa nova, bossa, Brazilian jazz, Brazilian bossa nova, bossa nova music, Rio-style jazz"
        " / Brazilian lounge music, Ipanema-style jazz",
        "bossa nova, bossa nova tune, bossa tune, bossa piece, Brazilian jazz tune / Brazilian lounge tune,"
        " bossa number",
        "bossa nova, bossa / Brazilian-flavoured",
        "for a beach bar, for a sunny terrace, for a lift, for an elevator, for a hotel lobby, for a stroll in Rio"
        " / for a seaside café",
        "it is gently syncopated, it sways like palm trees, it smells of sea and coffee",
    ),
    "waltz": _style(
        "waltz music, waltz, Viennese waltz, ballroom waltz music, three-four dance music / old Viennese dance music",
        "waltz, ballroom waltz, dance in three, waltz tune, old-fashioned waltz, salon waltz, Viennese waltz"
        " / whirling ballroom dance, dance in three-four",
        "waltzing, waltz-time, ballroom / lilting three-four",
        "for a ballroom, for a merry-go-round, for a first wedding dance, for a Paris street scene"
        " / for twirling across the floor",
        "it turns round and round in three, dancers could whirl to it, it sways one two three",
    ),
    "march": _style(
        "march music, marching band music, military music, parade music, brass band music, ceremonial music"
        " / march-past music, regimental music",
        "march, military march, parade march, marching band tune, ceremonial march, brass band march, marching tune"
        " / quickstep march, processional march",
        "marching, military, parade-ground / martial",
        "for a parade, for a victory ceremony, for a school marching band, for a circus entrance, for a procession"
        " / for troops on parade",
        "boots could keep step to it, it goes left right left right, it strides along",
    ),
    "folk": _style(
        "folk, folk music, acoustic folk, traditional music, country dance music, village music, old folk music"
        " / roots music, fireside folk",
        "folk tune, folk dance, folk song, village dance, fireside tune, barn dance, traditional tune"
        " / folk ditty, hoedown",
        "folk, folky, rustic / homespun",
        "for a village dance, for a campfire, for a harvest festival, for a hike, for a country fair"
        " / for a barn dance at dusk",
        "it sounds like friends playing on a porch, the melody is singable, the tune sounds old",
    ),
    "baroque chorale": _style(
        "church music, sacred music, baroque music, hymn music, chorale music, liturgical music, baroque chorale music"
        " / devotional music, choral harmony",
        "baroque chorale, chorale, hymn, church chorale, Bach-style chorale, sacred hymn, church hymn"
        " / Lutheran hymn, chorale setting",
        "baroque, sacred, churchly / hymn-like",
        "for a church service, for a cathedral, for a solemn ceremony, for a procession, for Easter morning"
        " / for evensong",
        "the voices step from chord to chord, a congregation could sing along, it belongs in a stone church",
    ),
    "string quartet": _style(
        "chamber music, classical chamber music, classical music, string quartet music, classical strings"
        " / salon music, drawing-room music",
        "chamber piece, string quartet, classical quartet, chamber work, classical piece, quartet movement"
        " / chamber movement, Haydn-style quartet",
        "classical, chamber / Viennese classical",
        "for a wedding ceremony, for a museum, for a period drama, for a garden reception, for a recital"
        " / for a stately home",
        "it sounds like a recital in a small hall, the parts talk to each other, it is finely woven",
    ),
    "solo piano": _style(
        "neoclassical music, modern classical music, lyrical music, piano music, solo piano music, solo piano"
        " / contemporary classical music, intimate piano music",
        "lyrical piece, ballad, nocturne, prelude, romance, piano piece, piano ballad, piano solo, piano nocturne"
        " / reverie, impromptu, piano miniature",
        "lyrical, neoclassical / intimate",
        "for a quiet evening, for a film scene, for reading, for a candlelit dinner, for journaling"
        " / for an evening by the fire",
        "it sounds like a page of a diary, the melody sings, it sounds like thoughts at a window",
    ),
    "music box": _style(
        "lullaby music, nursery music, music box music, children's music, baby sleep music, bedtime music"
        " / cradle music, crib mobile music",
        "lullaby, nursery melody, nursery tune, cradle song, music box tune, music box lullaby, bedtime melody"
        " / cradle tune, nursery rhyme tune",
        "lullaby-like, nursery, childlike / cradle-song",
        "for a baby to fall asleep to, for a nursery, for a snow globe, for a bedtime story, for a fairy tale"
        " / for a sleepy toddler",
        "it would send a baby to sleep, it sounds like a wound-up toy, a ballerina could spin to it",
    ),
    "chiptune": _style(
        "chiptune, 8-bit music, video game music, retro game music, chip music, console music, arcade music, game music"
        " / handheld console music, pixel music",
        "chiptune, 8-bit theme, video game theme, arcade tune, game track, pixel adventure theme, 8-bit tune"
        " / platformer theme, game level theme",
        "8-bit, chiptune, video game / arcade-style",
        "for a platform game, for a boss fight, for an arcade cabinet, for a pixel art trailer,"
        " for a level select screen / for a game jam entry",
        "it sounds like an old game console, it bleeps like an arcade, it could come from a handheld console",
    ),
    "synthwave": _style(
        "synthwave, retrowave, 80s synth music, outrun, 80s electronic music, retro electronic music, new retro wave"
        " / neon-lit electronic music, eighties synth pop",
        "synthwave track, retrowave tune, 80s synth anthem, outrun track, retro electronic theme, synthwave tune"
        " / eighties soundtrack, neon synth track",
        "synthwave, retro electronic / eighties-style",
        "for a night drive, for a neon city at midnight, for a cyberpunk film, for an 80s film montage"
        " / for a drive down a neon boulevard",
        "it glows like neon, it belongs in an 80s film, it sounds like the future as 1985 saw it",
    ),
    "blues": _style(
        "blues, blues music, twelve-bar blues, Delta blues, electric blues, Chicago blues / juke joint blues,"
        " bar-room blues",
        "blues, blues tune, blues number, twelve-bar blues, blues shuffle, blues song / blues jam, juke joint number",
        "bluesy, blues / blues-drenched",
        "for a late-night bar, for a smoky juke joint, for a long train ride, for a roadhouse"
        " / for drowning your sorrows",
        "it has the blues, it tells of hard times, it bends and moans like an old blues record",
    ),
    "funk": _style(
        "funk, funk music, 70s funk, classic funk, jazz-funk / deep funk, P-Funk style music",
        "funk groove, funk track, funk tune, funk jam, funk number / funk workout, funk cut",
        "funky, funk / groovy funk",
        "for a block party, for a cop show, for a roller rink, for a dance contest / for strutting down the street",
        "it is tight and funky, you cannot keep still to it, everything is syncopated",
    ),
    "reggae": _style(
        "reggae, reggae music, roots reggae, Jamaican music, dub reggae / island reggae, rocksteady",
        "reggae tune, reggae track, reggae song, roots reggae tune, reggae groove / Jamaican groove, dub tune",
        "reggae, Jamaican / Kingston-style",
        "for a beach party, for a hammock, for a summer barbecue, for a day by the sea / for a sunny day in Kingston",
        "it has an island feel, it sways like the Caribbean, it takes life easy",
    ),
    "country": _style(
        "country, country music, Nashville country, country and western, honky-tonk, Americana / Southern country,"
        " twangy country",
        "country song, country tune, country ballad, honky-tonk tune, country number / cowboy song, Nashville tune",
        "country, twangy / country-and-western",
        "for a road trip through Texas, for a pick-up truck, for a rodeo, for a saloon / for a ranch at sundown",
        "it smells of hay and dust, it could come from Nashville, it tells a plain story",
    ),
    "disco": _style(
        "disco, disco music, 70s disco, dance floor disco, Eurodisco, classic disco / Studio 54 style disco, boogie",
        "disco track, disco tune, disco anthem, disco hit, disco number / seventies floor-filler, disco stomper",
        "disco, disco-style / glitter-ball",
        "for a mirror ball, for a roller disco, for a seventies party, for the dance floor / for a night at Studio 54",
        "a mirror ball turns above it, it is pure seventies glitter, it makes you want to dance",
    ),
    "drum and bass": _style(
        "drum and bass, drum & bass, drum'n'bass, DnB, liquid drum and bass, jungle / breakbeat music, UK jungle",
        "drum and bass track, DnB tune, drum & bass roller, jungle tune, drum'n'bass track / breakbeat roller,"
        " liquid DnB cut",
        "drum-and-bass, DnB / breakbeat-driven",
        "for a night bus in London, for a snowboard video, for a rave, for a skate clip / for a late set in Bristol",
        "breakbeats roll on and on, it came from London's raves, the sub bass rumbles",
    ),
    "trap": _style(
        "trap, trap music, trap instrumental music, Atlanta trap, hip hop, trap beats / Southern hip hop, 808 hip hop",
        "trap beat, trap instrumental, trap track, trap tune, type beat / hip hop banger, 808 beat",
        "trap, trap-style / Atlanta-style",
        "for a rapper to freestyle over, for a street dance battle, for a mixtape, for a sneaker advert"
        " / for cruising the city at night",
        "a rapper could freestyle over it, it is heavy, it has plenty of swagger",
    ),
    "metal": _style(
        "metal, heavy metal, metal music, thrash metal, headbanging metal / head-banger music, classic heavy metal",
        "metal track, heavy metal song, metal tune, metal anthem, thrash number / headbanger, metal onslaught",
        "metal, heavy metal / thrashing",
        "for a mosh pit, for a monster truck show, for a boss battle, for a wrestling entrance / for banging your head",
        "it is heavy as lead, heads would bang to it, it is made of iron",
    ),
    "tango": _style(
        "tango, tango music, Argentine tango, tango argentino, Buenos Aires tango / milonga music,"
        " ballroom tango music",
        "tango, Argentine tango, tango tune, ballroom tango, tango number / milonga, tango for two dancers",
        "tango, tango-style / Buenos Aires-style",
        "for a dance hall in Buenos Aires, for a dance contest, for a dimly lit ballroom / for dancing cheek to cheek",
        "two dancers could stalk the floor to it, it struts and stops, it comes from Buenos Aires at night",
    ),
    "samba": _style(
        "samba, samba music, Brazilian samba, carnival music, Rio carnival samba / Brazilian carnival music,"
        " samba school music",
        "samba, samba tune, carnival samba, samba number, samba party tune / carnival tune,"
        " Brazilian street party tune",
        "samba, samba-style / carnival-style",
        "for carnival in Rio, for a street parade, for a football crowd, for a summer party / for a carnival float",
        "Rio's carnival dances to it, it rolls like a street parade, hips would sway to it",
    ),
    "celtic": _style(
        "Celtic music, Celtic folk, Irish music, Irish folk, Scottish music, Irish traditional music, trad"
        " / pub session music, Highland music",
        "Celtic tune, Irish tune, Celtic air, Irish folk tune, pub session tune, Scottish tune / Gaelic air,"
        " Highland tune",
        "Celtic, Irish, Scottish-sounding / Gaelic",
        "for an Irish pub, for St Patrick's Day, for a green valley, for a fantasy tavern / for a ceilidh",
        "it comes from green hills, it could be heard in an Irish pub, it tells of old Ireland",
    ),
    "cinematic orchestra": _style(
        "cinematic music, film music, movie music, orchestral music, soundtrack music, symphonic music, trailer music,"
        " cinematic orchestral music, film score music / motion picture music, Hollywood-style music",
        "film score, movie soundtrack, cinematic piece, orchestral piece, film theme, movie theme, cinematic cue"
        " / motion picture theme, blockbuster cue",
        "cinematic, film-score, soundtrack-like / Hollywood",
        "for a film trailer, for a movie trailer, for the opening credits, for a fantasy film, for a battle scene,"
        " for a (theatre|theater) / for the big screen",
        "it could score a film, it paints a wide landscape, you can see the credits roll",
    ),
    "gospel": _style(
        "gospel, gospel music, black gospel, praise music, Sunday church music / worship music, revival tent music",
        "gospel tune, gospel song, gospel number, praise song, spiritual / church shout, worship song",
        "gospel, soulful gospel, churchy / revival-style",
        "for Sunday service, for a church picnic, for a baptism, for a praise band / for lifting your hands",
        "it lifts its hands to heaven, the whole church could clap along, it testifies",
    ),
    "ragtime": _style(
        "ragtime, ragtime music, classic ragtime, old-time ragtime, saloon ragtime / parlour rag music,"
        " Joplin-style music",
        "rag, ragtime tune, ragtime number, ragtime piece, old-time rag, cakewalk / saloon rag, Joplin-style rag",
        "ragtime, raggy / silent-film",
        "for a silent film, for a saloon, for an old-time ice cream parlour, for a vintage cartoon"
        " / for a penny arcade",
        "it ragged its way out of 1900, it hops and skips along, a silent film flickers to it",
    ),
    "soul": _style(
        "soul, soul music, classic soul, 60s soul, Motown-style soul, rhythm and blues / Memphis-style soul,"
        " old-school R&B",
        "soul tune, soul ballad, soul song, soul number, soul groove / Motown-style number, R&B tune",
        "soulful, soul / Memphis-style",
        "for a slow dance, for a Sunday morning, for a first date, for a candlelit evening / for holding someone close",
        "it comes straight from the heart, it could be an old Motown record, it pleads and sways",
    ),
    "latin pop": _style(
        "Latin pop, Latin music, Latin dance music, Spanish pop, reggaeton-style pop / Miami-style pop, Caribbean pop",
        "Latin pop song, Latin pop tune, Latin dance tune, Latin hit, Spanish pop tune / Latin summer hit,"
        " Miami club tune",
        "Latin, Latin pop / Miami-style",
        "for a summer party, for a dance class, for a night in Miami, for a holiday video / for a salsa bar",
        "it has Latin heat, it tastes of summer, you could dance to it all night in Miami",
    ),
}  # fmt: skip

# Adjectives of a mood, and phrases that follow a noun.
MOODS = rows({
    "happy": "happy, cheerful, joyful, merry, sunny, bright, uplifting, feel-good, optimistic, jolly, cheery,"
    " good-humoured / joyous, upbeat-sounding, blissful, carefree",
    "playful": "playful, quirky, whimsical, mischievous, cheeky, perky, comical, light-hearted, funny, cute, bouncy"
    " / humorous, impish, silly",
    "calm": "calm, peaceful, relaxing, gentle, soothing, tranquil, serene, mellow, soft, laid-back, quiet, chilled"
    " / restful, placid, comforting",
    "dreamy": "dreamy, ethereal, hazy, floating, otherworldly, magical, spacious, weightless, shimmering, spacey"
    " / dreamlike, mystical, enchanted",
    "majestic": "majestic, grand, epic, heroic, triumphant, noble, powerful, stately, glorious, proud, regal"
    " / imposing, victorious, monumental",
    "energetic": "energetic, exciting, driving, fiery, vigorous, high-energy, punchy, powerful, wild, intense, lively"
    " / dynamic, electrifying, spirited",
    "sad": "sad, melancholic, sorrowful, mournful, wistful, gloomy, tearful, heartbroken, melancholy, plaintive, lonely"
    " / dejected, bittersweet, grieving",
    "dark": "dark, ominous, brooding, menacing, sinister, shadowy, tense, eerie, haunting, foreboding, scary, gothic"
    " / spooky, threatening, grim",
})  # fmt: skip
MOOD_IMAGES = rows({
    "happy": "like sunshine after rain, that makes you smile, full of good cheer, like the first day of the holidays,"
    " with a spring in its step / that puts you in a good mood",
    "playful": "that skips and hops, like a cartoon, like kittens at play, with a twinkle in its eye,"
    " that never sits still / full of little jokes",
    "calm": "like a still lake, to unwind to, like a deep breath, with nothing to worry about / to calm the nerves",
    "dreamy": "washed in echo, like drifting through clouds, like a half-remembered dream, floating in a vast space"
    " / as if seen through mist",
    "majestic": "like a coronation, fit for a king, like a view from a mountain top, that stands tall"
    " / worthy of a royal procession",
    "energetic": "that never lets up, full of drive, bursting with energy, that gets the blood pumping / full of fire",
    "sad": "like a farewell, full of longing, that aches, like rain on a window, about something lost"
    " / that brings tears to the eyes",
    "dark": "like footsteps in an empty house, full of menace, from the shadows, like a storm drawing near,"
    " that creeps up on you / like something lurking in the fog",
})  # fmt: skip

TEMPOS = rows({
    "very slow": "very slow, extremely slow, really slow, very slow-paced / glacially slow, super slow",
    "slow": "slow, slow-paced, low-tempo, slowish, slow-moving / down-tempo, slow-tempo",
    "moderate": "mid-tempo, moderate, medium-paced, moderately paced, medium tempo, andante / mid-paced, medium-speed",
    "upbeat": "upbeat, brisk, quick, up-tempo, uptempo, quick-paced / swift, allegro",
    "fast": "fast, fast-paced, rapid, speedy, very quick, racing, high-speed / quick-fire, presto",
})  # fmt: skip
SPEEDS = rows({
    "very slow": "very slow, extremely slow, really slow / super slow",
    "slow": "slow, rather slow, on the slow side / slowish and steady",
    "moderate": "moderate, medium, neither fast nor slow / middling",
    "upbeat": "quick, brisk, lively, upbeat / allegro",
    "fast": "fast, very fast, rapid, really quick / presto",
})  # fmt: skip
PACES = rows({
    "very slow": "at a crawl, at a very slow pace, at a snail's pace, at a very slow tempo / at a glacial pace",
    "slow": "at a slow pace, at a slow speed, at a slow tempo, in no rush / at a gentle crawl",
    "moderate": "at a walking pace, at a medium tempo, at a moderate speed, at a moderate pace / at a middling pace",
    "upbeat": "at a brisk pace, at a lively pace, at an upbeat tempo, at quite a quick tempo / moving along briskly",
    "fast": "at high speed, at a fast tempo, at a breakneck pace, at full tilt, at a fast pace / at lightning speed",
})  # fmt: skip

# Nouns for an instrument. Those that end in s are plurals ("strings play"), but for SINGULARS; MASS_NOUNS take no "a".
INSTRUMENTS = rows({
    "grand piano": "piano, grand piano, acoustic piano, concert piano, concert grand / upright piano, baby grand piano",
    "electric piano": "electric piano, Rhodes piano, Rhodes, Wurlitzer-style piano, e-piano / electric keyboard,"
    " Rhodes keyboard",
    "harpsichord": "harpsichord, cembalo, baroque harpsichord / clavier, plucked keyboard",
    "church organ": "church organ, pipe organ, cathedral organ, organ / grand pipe organ, chapel organ",
    "hammond organ": "Hammond organ, electric organ, rock organ, organ, Hammond B3 / tonewheel organ, drawbar organ",
    "reed organ": "reed organ, harmonium, pump organ / parlour organ, foot-pumped organ",
    "music box": "music box, wind-up music box, toy music box, musical box / clockwork music box,"
    " musical jewellery box",
    "celesta": "celesta, celeste, bell piano / bell-like celesta, orchestral celesta",
    "vibraphone": "vibraphone, vibes, mallet vibraphone / vibraharp, jazz vibes",
    "marimba": "marimba, wooden marimba, mallet marimba / wooden mallet instrument, rosewood marimba",
    "kalimba": "kalimba, thumb piano, African kalimba / African thumb piano, sansula",
    "steel drums": "steel drums, steel pan, steelpan, steel drum / Caribbean steel pans, Trinidad steelpan",
    "nylon guitar": "guitar, nylon guitar, classical guitar, Spanish guitar, nylon-string guitar / flamenco guitar,"
    " gut-string guitar",
    "acoustic guitar": "guitar, acoustic guitar, steel-string guitar, folk guitar, steel-string acoustic guitar"
    " / western guitar, campfire guitar",
    "jazz guitar": "guitar, jazz guitar, hollow-body guitar, archtop guitar, jazz electric guitar"
    " / hollowbody electric guitar, warm jazz guitar",
    "clean electric guitar": "guitar, clean electric guitar, electric guitar, clean guitar, undistorted guitar"
    " / clean-toned guitar, Strat-style guitar",
    "overdriven guitar": "guitar, overdriven guitar, electric guitar, gritty electric guitar,"
    " overdriven electric guitar, lead guitar"
    " / crunchy electric guitar, tube-amp guitar",
    "distorted guitar": "guitar, distorted guitar, heavy guitar, electric guitar, distorted electric guitar,"
    " heavy guitars"
    " / fuzzy guitar, high-gain guitar",
    "banjo": "banjo, bluegrass banjo, five-string banjo / country banjo, old-time banjo",
    "sitar": "sitar, Indian sitar, twangy sitar / Hindustani sitar, raga-style sitar",
    "violin": "violin, bowed violin, concert violin / classical violin, orchestral violin",
    "viola": "viola, bowed viola, orchestral viola / alto violin, classical viola",
    "cello": "cello, violoncello, bowed cello / concert cello, warm cello",
    "fiddle": "fiddle, folk violin, folk fiddle, country fiddle / bluegrass fiddle, village fiddle",
    "string ensemble": "strings, string section, orchestral strings, string ensemble, string orchestra"
    " / massed strings, symphonic strings",
    "pizzicato strings": "pizzicato strings, plucked strings, plucked string section, pizzicato string section"
    " / pizz strings, finger-plucked strings",
    "harp": "harp, concert harp, orchestral harp, plucked harp / classical harp, angelic harp",
    "trumpet": "trumpet, open trumpet, brass trumpet / concert trumpet, valve trumpet",
    "muted trumpet": "muted trumpet, trumpet with a mute, Harmon-muted trumpet, muted jazz trumpet"
    " / wah-wah trumpet, trumpet played with a mute",
    "trombone": "trombone, slide trombone, tenor trombone / sliding trombone, jazz trombone",
    "french horn": "French horn, horn, orchestral horn / concert horn, hunting horn",
    "brass section": "brass section, horn section, brass, brass ensemble / brass players, massed brass",
    "saxophone": "saxophone, sax, tenor saxophone, tenor sax, smooth sax / velvety saxophone, smoky saxophone",
    "clarinet": "clarinet, woody clarinet, B flat clarinet / liquorice stick, ebony clarinet",
    "oboe": "oboe, reedy oboe, orchestral oboe / classical oboe, double-reed oboe",
    "bassoon": "bassoon, woody bassoon, orchestral bassoon / low double reed, double-reed bassoon",
    "flute": "flute, concert flute, silver flute, transverse flute / classical flute, breathy flute",
    "recorder": "recorder, wooden recorder, block flute / school recorder, baroque recorder",
    "pan flute": "pan flute, panpipes, Andean pan flute, pan pipes / Peruvian pipes, zampona",
    "whistle": "whistle, tin whistle, penny whistle, Irish whistle / Irish tin whistle, metal whistle",
    "harmonica": "harmonica, blues harp, mouth organ, harp-style harmonica / mouth harp, diatonic harmonica",
    "choir": "choir, wordless choir, choral voices, vocal ensemble, voices / wordless singers, chorus",
    "synth choir": "synth choir, synthetic choir, synth voices, choir synth, synthesized choir / artificial voices,"
    " choir pad",
    "accordion": "accordion, squeezebox, button accordion, piano accordion, French accordion / concertina, musette",
    "synth lead": "synth lead, lead synthesizer, analog synth lead, analogue synth, saw lead, synthesizer, synth"
    " / sawtooth synth, lead synthesiser",
    "supersaw synth": "synth, supersaw synth, supersaw lead, detuned synth, supersaw, trance synth"
    " / stacked saw synth, trance lead",
    "acid synth": "synth, acid synth, squelchy synth, 303-style synth, acid line, squelchy acid line / TB-303 line,"
    " squelching synth",
    "synth pluck": "synth, synth pluck, plucked synth, plucky synthesizer, pluck synth / short plucky synth,"
    " staccato synth",
    "square wave lead": "square wave lead, 8-bit lead, square wave, chip lead, square lead / Game Boy-style lead,"
    " bleepy synth",
    "pulse wave lead": "pulse wave lead, pulse wave, pulse lead, 8-bit synth, chip synth / NES-style lead,"
    " nasal chip lead",
    "synth bell": "synth bell, FM bell, digital bell, synth bells, bell synth / DX7-style bell, digital chime",
    "synth pad": "synth pad, warm pads, lush pad, synth pads, synth chords / washy pads, sustained synth",
    "synth stabs": "synth stabs, chord stabs, house stabs / short synth chords, stabbing synth chords",
    "chip arpeggio": "8-bit arpeggio, chip arpeggios, bleeping arpeggios / game-console arpeggio, chip broken chords",
    "upright bass": "upright bass, double bass, plucked upright bass, acoustic bass / stand-up bass, bass fiddle",
    "bass guitar": "bass guitar, electric bass, fingered bass / bassline on electric bass, fingerstyle bass",
    "fretless bass": "fretless bass, smooth fretless bass, bass guitar / sliding fretless bass, fretless electric bass",
    "double bass": "double bass, bowed bass, contrabass / bass viol, orchestral bass",
    "tuba": "tuba, bass tuba, oompah tuba / low tuba, brass bass",
    "sub bass": "sub bass, deep bass, rumbling sub bass, 808 bass / booming sub, subsonic bass",
    "synth bass": "synth bass, synthesizer bass, electronic bass, buzzing bass / analog bass synth, Moog-style bass",
    "triangle bass": "triangle bass, 8-bit bass, triangle wave bass / chip bass, console bass",
    "drum kit": "drums, drum kit, acoustic drums, live drums / drum set, drummer's kit",
    "rock drums": "rock drums, punchy drums, drum kit, drums / big rock kit, stadium drums",
    "jazz drums": "jazz drums, swinging drums, drum kit, drums / jazz kit, bop drums",
    "brushed drums": "brushed drums, brushes, soft drums / brushwork, brushed snare",
    "marching drums": "marching drums, military drums, field drums, drums / drum corps, parade drums",
    "drum machine": "drum machine, electronic drums, programmed drums, 909-style drums / electronic drum kit,"
    " synthetic percussion",
    "dusty drums": "dusty drums, lo-fi drums, sampled drums, drums / crunchy sampled drums, vinyl-sampled drums",
    "8-bit drums": "8-bit drums, noise drums, chip percussion, console drums / game-console drums, chip drums",
    "hand percussion": "hand percussion, hand drums, percussion, light percussion / hand-played percussion, bongos",
    "vinyl crackle": "vinyl crackle, record noise, needle crackle, tape and vinyl noise / crackling vinyl,"
    " surface noise",
})  # fmt: skip
SINGULARS = {"blues", "Rhodes", "bass", "brass"}
MASS_NOUNS = {
    "brass", "massed brass", "hand percussion", "percussion", "light percussion", "chip percussion",
    "vinyl crackle", "record noise", "needle crackle", "tape and vinyl noise", "synthetic percussion", "brushwork",
    "sub bass", "deep bass", "rumbling sub bass", "808 bass", "subsonic bass", "hand-played percussion",
    "crackling vinyl", "surface noise", "electronic bass",
}  # fmt: skip
PLAYERS = rows({
    "grand piano": "pianist, piano player",
    "harpsichord": "harpsichordist",
    "church organ": "organist",
    "hammond organ": "organist, organ player",
    "vibraphone": "vibraphonist",
    "nylon guitar": "guitarist, classical guitarist",
    "acoustic guitar": "guitarist, guitar player",
    "jazz guitar": "jazz guitarist, guitarist",
    "clean electric guitar": "electric guitarist, guitarist",
    "overdriven guitar": "electric guitarist, guitarist",
    "distorted guitar": "electric guitarist, guitarist",
    "banjo": "banjo player, banjo picker",
    "sitar": "sitar player",
    "violin": "violinist, violin player",
    "viola": "violist, viola player",
    "cello": "cellist, cello player",
    "fiddle": "fiddler, fiddle player",
    "harp": "harpist, harp player",
    "trumpet": "trumpeter, trumpet player",
    "trombone": "trombonist, trombone player",
    "french horn": "horn player",
    "saxophone": "saxophonist, sax player",
    "clarinet": "clarinettist, clarinet player",
    "oboe": "oboist, oboe player",
    "bassoon": "bassoonist, bassoon player",
    "flute": "flautist, flutist, flute player",
    "recorder": "recorder player",
    "harmonica": "harmonica player",
    "accordion": "accordionist, accordion player",
})  # fmt: skip
FAMILIES = rows({
    "piano": "keys, keyboards, a keyboard instrument / keyboard sounds",
    "organ": "organ sounds, an organ sound / organ tones",
    "mallets": "mallet percussion, bell-like mallets, tuned percussion / chiming mallets",
    "guitar": "guitar, guitar sounds, a fretted instrument / plucked frets",
    "strings": "strings, bowed or plucked strings, a string instrument, string sounds / stringed instruments",
    "brass": "brass, brass instruments, a brass instrument / brassy sounds",
    "woodwinds": "woodwinds, a wind instrument, winds, a woodwind instrument / wind sounds",
    "choir": "voices, wordless vocals, choral sounds, vocal sounds without words / a chorus of voices",
    "accordion": "accordion, free reeds, bellows and reeds / a squeezed reed instrument",
    "synth": "synths, a synth sound, electronic keyboards, synthesizer sounds / synthetic tones",
    "harp": "harp, harp sounds, plucked harp strings / harp tones",
})  # fmt: skip

SOLO = row("solo, unaccompanied / stand-alone")
ALONE = row(
    "all alone, on its own, unaccompanied, without accompaniment, with nothing else, all by itself"
    " / with no accompaniment whatsoever, and nobody else"
)
ALONE_PLURAL = row(
    "all alone, unaccompanied, without accompaniment, with nothing else / with no accompaniment whatsoever"
)
TOGETHER = rows({
    "duo": "as a duo, as a duet, for two players / as a twosome",
    "trio": "as a trio, for three players / as a threesome",
    "group": "with a full band, with the whole band, played by an ensemble, for a whole group"
    " / with everybody playing",
})  # fmt: skip
GROUPS = rows({
    "solo": "solo / one player",
    "duo": "duo, duet / pair of players",
    "trio": "trio / three-piece group",
    "group": "band, ensemble, group / several players",
})  # fmt: skip
DENSITIES = rows({
    "busy": "busy, virtuosic, ornate, intricate / flashy, note-packed",
    "sparse": "sparse, minimal, spare, simple, uncluttered / bare-bones, pared-down",
})  # fmt: skip
DENSITY_PHRASES = rows({
    "busy": "with lots of notes, full of notes, with nimble runs, with a busy melody, packed with notes"
    " / with fingers flying",
    "sparse": "with few notes, with long notes, with plenty of space, with a sparse melody / leaving room to breathe",
})  # fmt: skip
REGISTERS = rows({"low": "low, deep / low-pitched", "high": "high, high-pitched / treble"})
REGISTER_PHRASES = rows({
    "low": "in a low register, down low, in the low range / in the depths",
    "high": "in a high register, up high, in the upper range / way up high",
})  # fmt: skip
DRUMS = rows({
    "with": "with drums, with percussion, over a drum beat, with a beat, drums included, with drums keeping time"
    " / drummer included, with a rhythm on the drums",
    "without": "without drums, with no percussion, no drums, drumless, with no drums at all, no percussion,"
    " minus the drums,"
    " no beat, without percussion / free of drums, leave out the drums",
})  # fmt: skip
WITH_DRUMS = rows(
    {
        "with": "with drums, with percussion, over a drum beat, with a beat / with a drummer",
        "without": "without drums, with no percussion, with no drums at all, without percussion, minus the drums"
        " / free of drums",
    }
)
DRUM_TAGS = rows(
    {
        "with": "drums, with drums, percussion, beat / drum groove",
        "without": "no drums, drumless, without drums, no percussion, beatless / drum-free",
    }
)
METERS = rows(
    {
        "3/4": "three-four time, triple time, 3/4, 3/4 time, triple meter, waltz time / three beats to the bar",
        "4/4": "four-four time, common time, 4/4, 4/4 time / four beats to the bar",
        "6/8": "six-eight time, 6/8, 6/8 time, compound time / two lilting beats to the bar",
    }
)
MODES = rows({
    "major": "major, major, major key",
    "minor": "minor, minor, natural minor",
    "harmonic minor": "minor, minor, harmonic minor",
    "dorian": "minor, dorian, dorian minor",
    "phrygian": "minor, phrygian, phrygian minor",
    "mixolydian": "major, mixolydian, mixolydian major",
    "lydian": "major, lydian, lydian major",
})  # fmt: skip
SPOKEN_KEYS = {"C#": "C sharp", "F#": "F sharp", "Eb": "E flat", "Ab": "A flat", "Bb": "B flat"}
FORMS = rows(
    {
        "intro": "with an intro, that starts with an introduction / after a few opening bars",
        "bridge": "with a bridge, with a contrasting middle part / with a change in the middle",
    }
)
ENDINGS = row(
    "that comes to a proper end, with a final chord, with a clear ending, that ends on a last chord,"
    " ending on a final chord"
    " / that finishes properly, with a rounded-off close"
)
INSTRUMENTAL = row("instrumental, no vocals, no singing, instrumental only / without any singing")
ANY_KIND = row("music, instrumental music")  # where nobody could tell the style
ANY_PIECE = row("piece, tune, melody, instrumental, song without words")
PURPOSES = row(
    "background music, for a video, as background music, for a podcast, for my short film, for a slideshow, for a vlog,"
    " for a game / for a presentation, as underscore"
)
LEAD_NOUNS = row("melody, tune, theme, main melody, lead line, main tune / principal line, top line")

# What words say beyond their row: a phrase with such a word is used only where the fact of its row is true.
CLAIMS = {
    "solo": "solo alone lone",
    "band": "band bands group jam",
    "orchestra": "orchestra orchestral symphonic",
    "quartet": "quartet quartets",
    "drums": "drum drums beat beats beatless percussion kick snare backbeat breakbeat breakbeats"
    " four-on-the-floor stomper banger",
    "synth": "synth synths synthesizer electronic electro 8-bit bleeps",
    "acoustic": "acoustic unplugged",
    "piano": "piano",
    "keys": "keys keyboard keyboards",
    "guitar": "guitar guitars",
    "strings": "string strings",
    "brass": "brass horns",
    "choir": "choral choir chorus voices",
    "music box": "wound-up toy box",
    "sub bass": "sub 808 bassline",
    "fast": "racing breakneck frenetic",
    "quick": "lively bouncy brisk driving nimble perky exciting wild",
    "not fast": "calm gentle soothing laid-back quiet slow relaxing ballad ballads lullaby drifting restful hazy"
    " chilled serene tranquil floating sleepy",
    "slow": "slow",
    "three": "waltz waltzing three three-four",
}  # fmt: skip

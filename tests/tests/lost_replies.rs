//! A network that loses replies after the node has acted: every call is safe to repeat (Spec: 05 §9).

use cryptree::client::Detail;

use crate::{World, noise, upload};

#[tokio::test(flavor = "multi_thread")]
async fn work_gets_done_although_every_ninth_reply_is_lost() {
    let world = World::new().await;
    let session = world.sign_up("alice").await;
    world.network.lose_every(9);
    session.make_folder("/alice/d").await.unwrap();
    let content = noise(7 << 20);
    upload(&session, "/alice/d/large", &content).await.unwrap();
    for i in 0..5 {
        upload(&session, &format!("/alice/d/{i}"), &noise(i * 1000))
            .await
            .unwrap();
    }
    session
        .move_to("/alice/d/0", "/alice/d/zero")
        .await
        .unwrap();
    session.delete("/alice/d/1").await.unwrap();
    assert!(world.network.lost() > 3, "{} lost", world.network.lost());
    world.network.lose_every(0);

    let session = world.sign_in("alice").await;
    let mut names: Vec<_> = session
        .list("/alice/d", Detail::Full)
        .await
        .unwrap()
        .entries
        .into_iter()
        .map(|entry| entry.name)
        .collect();
    names.sort_unstable();
    assert_eq!(names, ["2", "3", "4", "large", "zero"]);
    assert!(session.read("/alice/d/large", 1 << 30).await.unwrap() == content);
    assert_eq!(
        session.read("/alice/d/3", 1 << 30).await.unwrap(),
        noise(3000)
    );
}
